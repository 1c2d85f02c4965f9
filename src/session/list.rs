use chrono::{DateTime, Utc};
use entity::SessionId;
use entity::upload_event;
use entity::upload_session::Status;
use tracing::instrument;

use super::Session;
use super::rows::{self, Filter};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event;
use crate::input::Reference;
use crate::page::Page;

/// Returns the session if the caller may see it.
///
/// # Errors
/// [`Error::NotFound`], alike for an unknown id and for a session that the caller may not see.
#[instrument(name = "session.find", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn find(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Session> {
    let session = rows::find(&engine.db.conn().of(caller.tenant), caller.tenant, id).await?.ok_or(Error::NotFound)?;
    if caller.sees(&session) { Ok(session) } else { Err(Error::NotFound) }
}

/// Returns the sessions that the caller may see, newest first; `limit` is 1 to 200.
#[instrument(name = "session.list", skip_all, fields(tenant.id = %caller.tenant))]
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    filter: &Filter,
    before: Option<SessionId>,
    limit: u64,
) -> Result<Page<Session, SessionId>> {
    let sessions = rows::list(&engine.db.search_conn().of(caller.tenant), caller, filter, before, limit + 1).await?;
    Ok(Page::cut(sessions, limit, |last| last.id))
}

/// Returns the session's events, oldest first.
///
/// # Errors
/// [`Error::NotFound`] as [`find`].
#[instrument(name = "session.events", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn events(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Vec<upload_event::Model>> {
    let session = find(engine, caller, id).await?;
    event::rows::of_session(&engine.db.conn().of(caller.tenant), session.tenant_id, session.id).await
}

/// A summary of those sessions of a batch that the caller may see.
#[derive(Clone, Debug)]
pub struct BatchSummary {
    /// The number of sessions in each state that occurs.
    pub counts: Vec<(Status, i64)>,
    pub sessions: i64,
    pub bytes: i64,
    pub first_activity_at: DateTime<Utc>,
    pub last_activity_at: DateTime<Utc>,
}

/// Counts the sessions of one batch reference that the caller may see.
///
/// # Errors
/// [`Error::NotFound`] if there is none.
#[instrument(name = "session.batch", skip_all, fields(tenant.id = %caller.tenant))]
pub async fn batch(engine: &Engine, caller: &Caller, reference: &Reference) -> Result<BatchSummary> {
    let lines = rows::summarize(&engine.db.count_conn().of(caller.tenant), caller, reference.as_str()).await?;
    let first = lines.iter().map(|line| line.first_at).min().ok_or(Error::NotFound)?;
    let last = lines.iter().map(|line| line.last_at).max().ok_or(Error::NotFound)?;
    Ok(BatchSummary {
        counts: lines.iter().map(|line| (line.status, line.sessions)).collect(),
        sessions: lines.iter().map(|line| line.sessions).sum(),
        bytes: lines.iter().fold(0, |sum, line| sum.saturating_add(line.bytes())),
        first_activity_at: first,
        last_activity_at: last,
    })
}
