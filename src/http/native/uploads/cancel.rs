use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::body::{Body, Nothing};
use crate::http::caller::admit;
use crate::http::path::session_of;
use crate::http::problem::Answer;
use crate::session;
use crate::views::SessionView;

/// Cancels the upload. Safe to repeat.
#[utoipa::path(
    post, path = "/app/uploads/{id}/cancel", tag = "uploads", params(("id" = Uuid, Path)),
    request_body = Nothing,
    responses((status = 200, description = "The session: CANCELLED, or in the terminal state that it already had", body = SessionView)),
    extensions(("x-permission" = json!("uploads.cancel"))),
)]
pub(crate) async fn cancel(engine: Data<Engine>, caller: Caller, id: Path<String>, body: Body<Nothing>) -> Answer {
    admit(&engine, &caller, Permission::UploadsCancel).await?;
    body.parse()?;
    let session = session::cancel(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(SessionView::from(session)))
}
