use entity::upload_session;

use super::{Entry, rows};
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session;
use crate::session::rows::Mark;

/// Records what happened to a session without a change of its state: an effect on the store, an operator's action.
///
/// `seen` is the session as the caller last read it; where others have recorded something since, it is read again. Answers
/// the session's row as it is then.
///
/// # Errors
/// [`Error::NotFound`] where the session's row is gone.
pub(crate) async fn record(
    engine: &Engine,
    tx: &Tx,
    seen: &upload_session::Model,
    entry: &Entry<'_>,
) -> Result<upload_session::Model> {
    // Without a mark there is nothing that others could have done before.
    record_marking(engine, tx, seen, entry, Mark::Nothing).await?.ok_or(Error::NotFound)
}

/// The same, with a mark on the session's row; `None`, and no event, where it is marked as cleared already.
pub(crate) async fn record_marking(
    engine: &Engine,
    tx: &Tx,
    seen: &upload_session::Model,
    entry: &Entry<'_>,
    mark: Mark,
) -> Result<Option<upload_session::Model>> {
    let mut seen = seen.clone();
    loop {
        let seq = seen.event_seq + 1;
        let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seq, entry);
        if let Some(session) = session::rows::advance(tx, &seen, &link, mark).await? {
            rows::insert(tx, seen.tenant_id, seen.id, seq, entry, link.mac).await?;
            return Ok(Some(session));
        }
        seen = session::rows::find(tx.conn(), seen.tenant_id, seen.id).await?.ok_or(Error::NotFound)?;
        match mark {
            Mark::Cleared(_) | Mark::Tried(_) if seen.storage_cleared_at.is_some() => return Ok(None),
            Mark::Nothing | Mark::Cleared(_) | Mark::Tried(_) => {}
        }
    }
}
