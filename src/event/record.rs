use std::collections::HashSet;

use chrono::{DateTime, Utc};
use entity::upload_session;
use serde_json::Value;

use super::rows::{self, Mark};
use crate::caller::Actor;
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::keys::Entry;

/// An event that does not change the session's state: an effect on the store, an operator's action. It does not name a
/// state: the session may leave the state that the caller saw before the note is recorded.
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
/// `seen` is the session as the caller last read it; if others have recorded something since, it is read again. Returns
/// the session's row as it is after the note.
///
/// # Errors
/// [`Error::NotFound`] if the session's row is gone.
pub(crate) async fn record(
    engine: &Engine,
    tx: &Tx,
    seen: &upload_session::Model,
    note: &Note<'_>,
) -> Result<upload_session::Model> {
    // With `Mark::Nothing` the result is never `None`.
    record_marking(engine, tx, seen, note, Mark::Nothing).await?.ok_or(Error::NotFound)
}

/// Records a note and sets a mark on the session's row. Returns `None` and records no event if the row is already marked as
/// cleared.
pub(crate) async fn record_marking(
    engine: &Engine,
    tx: &Tx,
    seen: &upload_session::Model,
    note: &Note<'_>,
    mark: Mark,
) -> Result<Option<upload_session::Model>> {
    let mut seen = seen.clone();
    loop {
        let (seq, entry) = (seen.event_seq + 1, entry(&seen, note));
        let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seq, &entry);
        if let Some(session) = rows::advance(tx, &seen, &link, mark).await? {
            rows::insert(tx, seen.tenant_id, seen.id, seq, &entry, link.mac).await?;
            return Ok(Some(session));
        }
        seen = rows::session(tx.conn(), seen.tenant_id, seen.id).await?.ok_or(Error::NotFound)?;
        match mark {
            Mark::Cleared(_) | Mark::Tried(_) if seen.storage_cleared_at.is_some() => return Ok(None),
            Mark::Nothing | Mark::Cleared(_) | Mark::Tried(_) => {}
        }
    }
}

/// Records notes on many sessions, by two statements for all of them. Returns their rows in order, `None` for a session
/// that is gone. A session may be named more than once.
pub(crate) async fn record_all(
    engine: &Engine,
    tx: &Tx,
    notes: &[(&upload_session::Model, Note<'_>)],
) -> Result<Vec<Option<upload_session::Model>>> {
    let mut named = HashSet::new();
    let mut first = Vec::new();
    for (seen, note) in notes {
        if named.insert(seen.id) {
            let (seq, entry) = (seen.event_seq + 1, entry(seen, note));
            let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seq, &entry);
            first.push((*seen, seq, entry, link));
        }
    }
    let advances: Vec<_> = first.iter().map(|(seen, _, _, link)| (*seen, link)).collect();
    let advanced = rows::advance_all(tx, &advances).await?;
    first.retain(|(seen, ..)| advanced.contains(&seen.id));
    let events =
        first.iter().map(|(seen, seq, entry, link)| rows::row(seen.tenant_id, seen.id, *seq, entry, &link.mac));
    rows::insert_all(tx, events.collect()).await?;

    let mut rows = Vec::with_capacity(notes.len());
    let mut first = first.into_iter().peekable();
    for (seen, note) in notes {
        let advanced = first.next_if(|(advanced, ..)| std::ptr::eq(*advanced, *seen));
        rows.push(match advanced {
            Some((_, seq, _, link)) => {
                Some(upload_session::Model { event_seq: seq, chain_head: link.head, ..(*seen).clone() })
            }
            // The session was named before, others have recorded something since it was read, or it is gone.
            None => match record(engine, tx, seen, note).await {
                Ok(session) => Some(session),
                Err(Error::NotFound) => None,
                Err(error) => return Err(error),
            },
        });
    }
    Ok(rows)
}

fn entry<'a>(seen: &upload_session::Model, note: &Note<'a>) -> Entry<'a> {
    Entry {
        event: note.event,
        from: Some(seen.status),
        to: Some(seen.status),
        actor: note.actor.name(),
        actor_kind: Some(note.actor.kind()),
        reason: None,
        details: note.details.clone(),
        at: note.at,
    }
}
