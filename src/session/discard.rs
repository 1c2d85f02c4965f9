use tracing::warn;

use super::{Session, location};
use crate::engine::Engine;
use crate::storage;

/// Clears what a session that ended without an asset left in the store: every multipart upload under its key, and the
/// object.
///
/// Best effort: a request may still be writing, and the store may be away. What fails is logged and left to the cleanup.
pub(super) async fn discard(engine: &Engine, session: &Session) {
    if let Err(error) = clear(engine, session).await {
        warn!(session.id = %session.id, %error, "could not clear the store after a session; the cleanup will");
    }
}

async fn clear(engine: &Engine, session: &Session) -> Result<(), storage::Error> {
    let at = location(session);
    if let Some(upload_id) = &session.multipart_upload_id {
        engine.storage.abort_multipart(&at, upload_id).await?;
    }
    // The answer that named an upload may have been lost: the key finds it.
    if session.total_parts.is_some() {
        for upload_id in engine.storage.list_uploads(&at).await? {
            engine.storage.abort_multipart(&at, &upload_id).await?;
        }
    }
    engine.storage.delete(&at).await
}

/// Aborts one upload that lost a race, best effort.
pub(super) async fn abort(engine: &Engine, session: &Session, upload_id: &str) {
    if let Err(error) = engine.storage.abort_multipart(&location(session), upload_id).await {
        warn!(session.id = %session.id, %error, "could not abort a multipart upload that nobody needs; the cleanup will");
    }
}
