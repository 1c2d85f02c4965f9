use entity::upload_session;

use super::{Entry, rows};
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session;

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
    let mut seen = seen.clone();
    loop {
        let seq = seen.event_seq + 1;
        let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seq, entry);
        if let Some(session) = session::rows::advance(tx, &seen, &link).await? {
            rows::insert(tx, seen.tenant_id, seen.id, seq, entry, link.mac).await?;
            return Ok(session);
        }
        seen = session::rows::find(tx.conn(), seen.tenant_id, seen.id).await?.ok_or(Error::NotFound)?;
    }
}
