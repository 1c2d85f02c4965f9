use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::body::{Body, Nothing};
use crate::http::caller::admit;
use crate::http::path::session_of;
use crate::http::problem::Answer;
use crate::session;
use crate::views::{StatusView, Time};

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Activity)]
pub(crate) struct ActivityView {
    upload_session_id: Uuid,
    status: StatusView,
    last_activity_at: Time,
    expires_at: Time,
}

/// Records that the upload is still being worked on.
#[utoipa::path(
    put, path = "/app/uploads/{id}/activity", tag = "uploads", params(("id" = Uuid, Path)),
    request_body = Nothing,
    responses(
        (status = 200, description = "Recorded", body = ActivityView),
        (status = 409, description = "`illegal-transition`, `session-expired`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(crate) async fn activity(engine: Data<Engine>, caller: Caller, id: Path<String>, body: Body<Nothing>) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    body.parse()?;
    let session = session::touch(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(ActivityView {
        upload_session_id: session.id.0,
        status: session.status.into(),
        last_activity_at: Time(session.last_activity_at),
        expires_at: Time(session.expires_at),
    }))
}
