use entity::upload_session::UploadType;
use serde_json::json;

use super::discard::abort;
use super::transition::transition_alone;
use super::{Change, Outcome, Session, location, rows};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::Result;
use crate::event::{Effect, record_effect};
use crate::storage::{ErrorKind, Location};

/// Opens an INITIATING session. A multipart session gets its upload from the store first.
///
/// Returns the session in its current state: another request may have opened, cancelled or failed it meanwhile. If two calls
/// open it at once, one upload is recorded, and the other call aborts the upload that it made.
///
/// `again`: an earlier attempt may have made an upload whose id was lost; it is looked up by its key.
///
/// # Errors
/// Errors of the store or the database. The session is INITIATING then, does not count as stuck while callers keep trying,
/// and the same call continues from there.
pub(super) async fn open(engine: &Engine, session: &Session, actor: &Actor, again: bool) -> Result<Session> {
    let upload_id = match session.upload_type {
        UploadType::Direct => None,
        UploadType::Multipart => match upload(engine, session, actor, again).await {
            Ok(upload_id) => Some(upload_id),
            Err(error) => {
                rows::touch_initiating(&engine.db, session, engine.clock.now()).await?;
                return Err(error);
            }
        },
    };
    let change = Change::open(actor, upload_id.as_deref());
    let outcome = transition_alone(engine, session, change).await?;
    match outcome {
        Outcome::Moved(session) => Ok(session),
        Outcome::Already(session) | Outcome::Refused(session) | Outcome::GuardFailed(session) => {
            if let Some(mine) = upload_id.filter(|mine| session.multipart_upload_id.as_ref() != Some(mine)) {
                abort(engine, &session, actor, &mine).await;
            }
            Ok(session)
        }
    }
}

async fn upload(engine: &Engine, session: &Session, actor: &Actor, again: bool) -> Result<String> {
    let at = location(session);
    if again && let Some(earlier) = uploads(engine, &at).await?.into_iter().next() {
        return Ok(earlier);
    }
    let opened = engine.storage.open_multipart(&at, &session.mime_type).await;
    record_effect(engine, session, actor, Effect::Open, json!({}), opened.as_ref().map(drop)).await;
    Ok(opened?)
}

/// Returns the uploads under a key, oldest first, whose parts the store can list. A list of uploads may be stale, and name
/// uploads that were aborted since.
pub(super) async fn uploads(engine: &Engine, at: &Location) -> Result<Vec<String>> {
    let mut uploads = Vec::new();
    for upload_id in engine.storage.list_uploads(at).await? {
        match engine.storage.list_parts(at, &upload_id).await {
            Ok(_) => uploads.push(upload_id),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(uploads)
}
