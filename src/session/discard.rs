use std::fmt;

use serde_json::json;

use super::{Session, location};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::event::{Effect, record_effect};
use crate::storage::{self, ErrorKind};

/// How many times [`clear_for_good`] aborts uploads before it gives up: a part in flight may survive one abort.
const ABORTS_MAX: u32 = 3;

/// Clears the store after a session that ended without an asset: aborts every multipart upload under its key, and deletes
/// the object.
///
/// Best effort: a request may still be writing, and the store may not answer. The outcome is recorded as an event of the
/// session; the cleanup removes what is left.
pub(super) async fn discard(engine: &Engine, session: &Session, actor: &Actor) {
    let outcome = clear(engine, session).await;
    record_effect(engine, session, actor, Effect::Discard, json!({}), outcome.as_ref().copied()).await;
}

async fn clear(engine: &Engine, session: &Session) -> Result<(), storage::Error> {
    if session.total_parts.is_some() {
        clear_uploads(engine, session).await?;
    }
    engine.storage.delete(&location(session)).await
}

async fn clear_uploads(engine: &Engine, session: &Session) -> Result<(), storage::Error> {
    let at = location(session);
    if let Some(upload_id) = &session.multipart_upload_id {
        engine.storage.abort_multipart(&at, upload_id).await?;
    }
    // The answer with an upload's id may have been lost: the key finds the upload.
    for upload_id in engine.storage.list_uploads(&at).await? {
        engine.storage.abort_multipart(&at, &upload_id).await?;
    }
    Ok(())
}

/// Aborts one upload that lost a race, best effort; the cleanup aborts what is left.
pub(super) async fn abort(engine: &Engine, session: &Session, actor: &Actor, upload_id: &str) {
    let outcome = engine.storage.abort_multipart(&location(session), upload_id).await;
    record_effect(engine, session, actor, Effect::Abort, json!({ "upload_id": upload_id }), outcome.as_ref().copied())
        .await;
}

/// Why something may be left in the store.
#[derive(Debug)]
pub(super) enum Left {
    Store(storage::Error),
    /// An upload or an object still exists after it was removed.
    StillThere(&'static str),
}

impl From<storage::Error> for Left {
    fn from(error: storage::Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::StillThere(what) => write!(f, "{what} is still there"),
        }
    }
}

/// Clears the store after a session, and verifies the result: succeeds only if the store itself reports neither an upload
/// nor an object under the session's key.
pub(super) async fn clear_for_good(engine: &Engine, session: &Session) -> Result<(), Left> {
    let at = location(session);
    let mut tries = 0;
    while session.total_parts.is_some() {
        clear_uploads(engine, session).await?;
        if !has_upload(engine, session).await? {
            break;
        }
        tries += 1;
        if tries == ABORTS_MAX {
            return Err(Left::StillThere("a multipart upload"));
        }
    }
    engine.storage.delete(&at).await?;
    match engine.storage.find(&at).await? {
        Some(_) => Err(Left::StillThere("the object")),
        None => Ok(()),
    }
}

/// Whether the store knows the recorded upload, or any other under the session's key.
async fn has_upload(engine: &Engine, session: &Session) -> Result<bool, storage::Error> {
    let at = location(session);
    if let Some(upload_id) = &session.multipart_upload_id {
        match engine.storage.list_parts(&at, upload_id).await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(!engine.storage.list_uploads(&at).await?.is_empty())
}
