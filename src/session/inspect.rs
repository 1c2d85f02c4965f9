use entity::{SessionId, upload_event};
use tracing::instrument;

use super::{Session, find, location};
use crate::asset::{self, Asset};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Result;
use crate::event;
use crate::storage::{self, Kind};

/// All that there is to know of a session.
#[derive(Debug)]
pub struct Inspection {
    pub session: Session,
    /// Oldest first.
    pub events: Vec<upload_event::Model>,
    /// For a caller who may see assets.
    pub asset: Option<Asset>,
    /// An error where the store does not answer; all else is told all the same.
    pub stored: Result<Stored, storage::Error>,
}

/// What the store holds under the session's own key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Of the session's multipart upload.
    pub parts: u64,
    /// Of these parts.
    pub part_bytes: u64,
    /// Of the object, where there is one.
    pub object_bytes: Option<u64>,
}

/// Looks at a session from all sides, and changes nothing: not even its activity.
///
/// # Errors
/// [`crate::error::Error::NotFound`] where the caller does not see it.
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
            Err(error) if error.kind == Kind::NotFound => vec![],
            Err(error) => return Err(error),
        };
        stored.parts = parts.len() as u64;
        stored.part_bytes = parts.iter().map(|part| part.size).sum();
    }
    stored.object_bytes = engine.storage.find(&at).await?.map(|object| object.size);
    Ok(stored)
}
