use chrono::{DateTime, Utc};
use entity::SessionId;
use entity::upload_event;
use entity::upload_session::Status;

use super::Session;
use super::rows::{self, Filter};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event;

/// The session, where the caller may know of it.
///
/// # Errors
/// [`Error::NotFound`], the same for an unknown id, another tenant's, another brand's and another user's.
pub async fn find(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Session> {
    let session = rows::find(engine.db.conn(), caller.tenant, id).await?.ok_or(Error::NotFound)?;
    if caller.sees(&session) { Ok(session) } else { Err(Error::NotFound) }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    pub sessions: Vec<Session>,
    /// Pass this as `before` for the next page; `None` on the last one.
    pub next: Option<SessionId>,
}

/// The caller's sessions, newest first; `limit` is 1 to 200.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    filter: &Filter,
    before: Option<SessionId>,
    limit: u64,
) -> Result<Page> {
    // One more than asked for tells whether there is a next page.
    let mut sessions = rows::list(engine.db.search_conn(), caller, filter, before, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = sessions.len() > wanted;
    sessions.truncate(wanted);
    let next = sessions.last().filter(|_| more).map(|last| last.id);
    Ok(Page { sessions, next })
}

/// The session's history, oldest first.
///
/// # Errors
/// [`Error::NotFound`] as [`find`].
pub async fn events(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Vec<upload_event::Model>> {
    let session = find(engine, caller, id).await?;
    event::rows::of_session(engine.db.conn(), session.tenant_id, session.id).await
}

/// How a batch stands, as far as the caller sees it.
#[derive(Clone, Debug)]
pub struct BatchSummary {
    /// Sessions in each state that occurs.
    pub counts: Vec<(Status, i64)>,
    pub sessions: i64,
    pub bytes: i64,
    pub first_activity_at: DateTime<Utc>,
    pub last_activity_at: DateTime<Utc>,
}

/// Counts the sessions of one batch reference that the caller sees.
///
/// # Errors
/// [`Error::NotFound`] where there is none.
pub async fn batch(engine: &Engine, caller: &Caller, reference: &str) -> Result<BatchSummary> {
    let lines = rows::summarize(engine.db.search_conn(), caller, reference).await?;
    let first = lines.iter().map(|line| line.first_at).min().ok_or(Error::NotFound)?;
    let last = lines.iter().map(|line| line.last_at).max().ok_or(Error::NotFound)?;
    Ok(BatchSummary {
        counts: lines.iter().map(|line| (line.status, line.sessions)).collect(),
        sessions: lines.iter().map(|line| line.sessions).sum(),
        bytes: lines.iter().map(|line| line.bytes).sum(),
        first_activity_at: first,
        last_activity_at: last,
    })
}
