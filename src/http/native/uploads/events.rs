use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::door::Door;
use crate::http::in_flight::ShareOwner;
use crate::http::path::session_of;
use crate::http::problem::Answer;
use crate::session;
use crate::views::EventView;

const EVENTS_BYTES: usize = 256 << 10;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadEvents)]
pub(crate) struct EventsView {
    /// Oldest first.
    data: Vec<EventView>,
}

/// Returns the session's history.
#[utoipa::path(
    get, path = "/app/uploads/{id}/events", tag = "uploads", params(("id" = Uuid, Path)),
    responses((status = 200, description = "Oldest first", body = EventsView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(crate) async fn events(engine: Data<Engine>, door: Data<Door>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let room = door.in_flight.reserve(ShareOwner::Tenant(caller.tenant), EVENTS_BYTES).await?;
    let events = session::events(&engine, &caller, session_of(&id)?).await?;
    Ok(room.json(StatusCode::OK, &EventsView { data: events.into_iter().map(Into::into).collect() }))
}
