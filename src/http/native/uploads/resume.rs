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
use crate::session::{self, NoResume};
use crate::views::{PutView, SessionView};

const RESUME_BYTES: usize = 1 << 20;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadedPart)]
pub(crate) struct UploadedPartView {
    part_number: u32,
    /// Null if the object is already assembled.
    etag: Option<String>,
    size: u64,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = NoResumeReason)]
pub(crate) enum NoResumeView {
    Terminal,
    Expired,
    StorageUploadLost,
}

impl From<NoResume> for NoResumeView {
    fn from(reason: NoResume) -> Self {
        match reason {
            NoResume::Terminal => Self::Terminal,
            NoResume::Expired => Self::Expired,
            NoResume::StorageUploadLost => Self::StorageUploadLost,
        }
    }
}

/// The session, and all that a client needs to resume.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resume)]
pub(crate) struct ResumeView {
    #[serde(flatten)]
    session: SessionView,
    can_resume: bool,
    reason: Option<NoResumeView>,
    /// The parts that the store holds.
    uploaded_parts: Vec<UploadedPartView>,
    uploaded_bytes: u64,
    /// All null unless the caller has `uploads.create`.
    #[serde(flatten)]
    put: PutView,
}

/// Returns what the store holds of the upload, as the store reports it. Counts as activity.
#[utoipa::path(
    get, path = "/app/uploads/{id}/resume", tag = "uploads", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The session, in any state", body = ResumeView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(crate) async fn resume(engine: Data<Engine>, door: Data<Door>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let room = door.in_flight.reserve(ShareOwner::Tenant(caller.tenant), RESUME_BYTES).await?;
    let resume = session::resume(&engine, &caller, session_of(&id)?).await?;
    let part = |part: session::Held| UploadedPartView { part_number: part.number, etag: part.etag, size: part.size };
    let view = ResumeView {
        session: resume.session.into(),
        can_resume: resume.can_resume,
        reason: resume.reason.map(Into::into),
        uploaded_parts: resume.parts.into_iter().map(part).collect(),
        uploaded_bytes: resume.uploaded_bytes,
        put: resume.put.into(),
    };
    Ok(room.json(StatusCode::OK, &view))
}
