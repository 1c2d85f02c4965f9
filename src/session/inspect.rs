use entity::{SessionId, upload_event};
use tracing::instrument;

use super::{Session, find, location};
use crate::asset::{self, Asset};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Result;
use crate::event;
use crate::storage::{self, ErrorKind};

/// Everything that is known about a session.
#[derive(Debug)]
pub struct Inspection {
    pub session: Session,
    /// Oldest first.
    pub events: Vec<upload_event::Model>,
    /// Only for a caller who may view assets.
    pub asset: Option<Asset>,
    /// An error if the store does not answer. The other fields do not depend on it.
    pub stored: Result<Stored, storage::Error>,
}

/// What the store holds under the session's own key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The number of parts of the session's multipart upload.
    pub parts: u64,
    /// The bytes of these parts.
    pub part_bytes: u64,
    /// The bytes of the object, if there is one.
    pub object_bytes: Option<u64>,
}

/// Reads a session, its events, its asset and what the store holds. Changes nothing, not even the time of the last activity.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the caller may not see the session.
#[instrument(name = "session.inspect", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn inspect(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Inspection> {
    let session = find(engine, caller, id).await?;
    let conn = &engine.db.conn().of(session.tenant_id);
    let events = event::rows::of_session(conn, session.tenant_id, session.id).await?;
    let asset = match caller.may(Permission::AssetsView) {
        true => asset::rows::find(conn, session.tenant_id, session.asset_id).await?,
        false => None,
    };
    let stored = stored(engine, &session).await;
    Ok(Inspection { session, events, asset, stored })
}

async fn stored(engine: &Engine, session: &Session) -> Result<Stored, storage::Error> {
    let at = location(session);
    let mut stored = Stored::default();
    if let Some(upload_id) = &session.multipart_upload_id {
        let parts = match engine.storage.list_parts(&at, upload_id).await {
            Ok(parts) => parts,
            Err(error) if error.kind == ErrorKind::NotFound => vec![],
            Err(error) => return Err(error),
        };
        stored.parts = parts.len() as u64;
        stored.part_bytes = parts.iter().map(|part| part.size).sum();
    }
    stored.object_bytes = engine.storage.find(&at).await?.map(|object| object.size);
    Ok(stored)
}
