use chrono::{DateTime, Utc};
use entity::upload_session;
use serde_json::Value;

use super::{Entry, rows};
use crate::caller::Actor;
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session;
use crate::session::rows::Mark;

/// What happened to a session without a change of its state: an effect on the store, an operator's action. It does not
/// say in which state: the session may leave the one that was seen before this is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Note<'a> {
    pub(crate) event: &'a str,
    pub(crate) actor: &'a Actor,
    /// A JSON object, as [`Entry::details`].
    pub(crate) details: Value,
    pub(crate) at: DateTime<Utc>,
}

/// Records a note on a session.
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
    note: &Note<'_>,
) -> Result<upload_session::Model> {
    // Without a mark there is nothing that others could have done before.
    record_marking(engine, tx, seen, note, Mark::Nothing).await?.ok_or(Error::NotFound)
}

/// The same, with a mark on the session's row; `None`, and no event, where it is marked as cleared already.
pub(crate) async fn record_marking(
    engine: &Engine,
    tx: &Tx,
    seen: &upload_session::Model,
    note: &Note<'_>,
    mark: Mark,
) -> Result<Option<upload_session::Model>> {
    let mut seen = seen.clone();
    loop {
        let (seq, status, details) = (seen.event_seq + 1, Some(seen.status), note.details.clone());
        let (event, actor, at) = (note.event, note.actor, note.at);
        let (actor, actor_kind) = (actor.name(), Some(actor.kind()));
        let entry = Entry { event, from: status, to: status, actor, actor_kind, reason: None, details, at };
        let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seq, &entry);
        if let Some(session) = session::rows::advance(tx, &seen, &link, mark).await? {
            rows::insert(tx, seen.tenant_id, seen.id, seq, &entry, link.mac).await?;
            return Ok(Some(session));
        }
        seen = session::rows::find(tx.conn(), seen.tenant_id, seen.id).await?.ok_or(Error::NotFound)?;
        match mark {
            Mark::Cleared(_) | Mark::Tried(_) if seen.storage_cleared_at.is_some() => return Ok(None),
            Mark::Nothing | Mark::Cleared(_) | Mark::Tried(_) => {}
        }
    }
}
