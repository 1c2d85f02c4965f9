use entity::SessionId;
use entity::upload_session::{FailureReason, Status, UploadType};
use tracing::instrument;

use super::activity::touch_seldom;
use super::complete::{look_again, whole};
use super::initiate::put_url;
use super::lost::{is_another, must_be_lost};
use super::plan::part_range;
use super::{Change, Outcome, Session, find, location, transition};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Result;
use crate::storage::{ErrorKind, Presigned};

/// Why an upload cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResume {
    Terminal,
    Expired,
    /// The store has neither the multipart upload nor the object any more.
    StorageUploadLost,
}

/// A part that the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub number: u32,
    /// `None` if the object is already assembled: its parts no longer have ETags of their own.
    pub etag: Option<String>,
    pub size: u64,
}

/// Everything that a client needs to continue an upload.
#[derive(Clone)]
pub struct Resume {
    pub session: Session,
    pub can_resume: bool,
    pub reason: Option<NoResume>,
    pub parts: Vec<Held>,
    pub uploaded_bytes: u64,
    /// Only for a caller who may create uploads, because anyone with the URL can send other bytes.
    pub put: Option<Presigned>,
}

/// Returns what the store holds for a session, as the store itself reports it.
///
/// Counts as activity while UPLOADING (at most one write each `sessions.activity_write_secs`). A multipart session becomes
/// FAILED `storage_error` if its upload and its object are both gone, and FAILED `verification_failed` if its object is not
/// the announced file.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the caller may not see the session. [`crate::error::Error::Storage`] if the store
/// does not answer, or its answers leave open whether something is gone.
#[instrument(name = "session.resume", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn resume(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Resume> {
    let session = find(engine, caller, id).await?;
    if session.status != Status::Uploading {
        let reason = session.status.is_terminal().then_some(NoResume::Terminal);
        return Ok(stuck(session, reason));
    }
    if engine.clock.now() >= session.expires_at {
        return Ok(stuck(session, Some(NoResume::Expired)));
    }
    match session.upload_type {
        UploadType::Direct => direct(engine, caller, session).await,
        UploadType::Multipart => multipart(engine, caller, session).await,
    }
}

async fn direct(engine: &Engine, caller: &Caller, session: Session) -> Result<Resume> {
    let uploaded_bytes = engine.storage.find(&location(&session)).await?.map_or(0, |object| object.size);
    going_on(engine, caller, session, vec![], uploaded_bytes).await
}

async fn multipart(engine: &Engine, caller: &Caller, session: Session) -> Result<Resume> {
    let at = location(&session);
    let upload_id = session.multipart_upload_id.as_deref().unwrap_or_default();
    let parts: Vec<Held> = match engine.storage.list_parts(&at, upload_id).await {
        // A completion was requested: the store may be assembling the parts.
        Ok(parts) if parts.is_empty() && session.completing_at.is_some() => match whole(engine, &session).await? {
            Some(_) => all_parts(&session),
            None => vec![],
        },
        Ok(parts) => parts.into_iter().map(|p| Held { number: p.number, etag: Some(p.etag), size: p.size }).collect(),
        Err(error) if error.kind == ErrorKind::NotFound => match engine.storage.find(&at).await? {
            Some(object) if !is_another(&session, &object) => all_parts(&session),
            Some(_) if !is_another(&session, &look_again(engine, &session).await?) => all_parts(&session),
            Some(_) => return lost(engine, caller, session, FailureReason::VerificationFailed).await,
            None => {
                must_be_lost(engine, &session, session.completing_at).await?;
                return lost(engine, caller, session, FailureReason::StorageError).await;
            }
        },
        Err(error) => return Err(error.into()),
    };
    let uploaded_bytes = parts.iter().map(|part| part.size).sum();
    going_on(engine, caller, session, parts, uploaded_bytes).await
}

async fn going_on(
    engine: &Engine,
    caller: &Caller,
    session: Session,
    parts: Vec<Held>,
    uploaded_bytes: u64,
) -> Result<Resume> {
    let session = touch_seldom(engine, session).await?;
    if session.status != Status::Uploading {
        return Ok(stuck(session, Some(NoResume::Terminal)));
    }
    let put = match caller.may(Permission::UploadsCreate) {
        true => put_url(engine, &session).await?,
        false => None,
    };
    Ok(Resume { session, can_resume: true, reason: None, parts, uploaded_bytes, put })
}

/// Returns every planned part, for an object that is complete.
fn all_parts(session: &Session) -> Vec<Held> {
    let (size, chunk) = (session.file_size.unsigned_abs(), session.chunk_size.unwrap_or(0).unsigned_abs());
    (1..=session.total_parts.unwrap_or(0).unsigned_abs())
        .map(|number| Held { number, etag: None, size: part_range(number, size, chunk).1 })
        .collect()
}

/// Fails a session that can never complete: the store has neither its upload nor the right object.
async fn lost(engine: &Engine, caller: &Caller, session: Session, reason: FailureReason) -> Result<Resume> {
    let change = Change::fail(&caller.actor, reason);
    let outcome = transition(engine, &session, change, async |_, _| Ok(())).await?;
    Ok(match outcome {
        Outcome::Moved(session) | Outcome::Already(session) => stuck(session, Some(NoResume::StorageUploadLost)),
        // The session was completed or cancelled meanwhile.
        Outcome::Refused(session) | Outcome::GuardFailed(session) => stuck(session, Some(NoResume::Terminal)),
    })
}

fn stuck(session: Session, reason: Option<NoResume>) -> Resume {
    Resume { session, can_resume: false, reason, parts: vec![], uploaded_bytes: 0, put: None }
}
