use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::path::session_of;
use crate::http::problem::Answer;
use crate::session;
use crate::views::SessionView;

/// Returns the session in its current state.
#[utoipa::path(
    get, path = "/app/uploads/{id}", tag = "uploads", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The session", body = SessionView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(crate) async fn find(engine: Data<Engine>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let session = session::find(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(SessionView::from(session)))
}
