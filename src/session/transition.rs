//! The only place that changes a session's state: one guarded UPDATE, for one session or for many.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use entity::upload_session::{self, Column, FailureReason, Status};
use entity::{SessionId, TenantId};
use sea_orm::sea_query::{Alias, Asterisk, CommonTableExpression, Expr, ExprTrait, Query, WithClause};
use sea_orm::{
    ActiveEnum, ColumnTrait, ConnectionTrait, DbBackend, FromQueryResult, QueryFilter, QueryTrait, Statement,
    UpdateMany,
};
use serde_json::{Value, json};

use super::rows;
use super::state::{Event, Row, Verdict, judge};
use crate::caller::Actor;
use crate::database::{Tx, db_error, insert_where, values};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::keys::{Entry, Link};
use crate::{event, tenant};

type Session = upload_session::Model;

/// A requested change of state.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    pub event: Event,
    pub actor: &'a Actor,
    /// The reason, for [`Event::Fail`].
    pub reason: Option<FailureReason>,
    /// The store's upload id, for [`Event::Open`] of a multipart session.
    pub upload_id: Option<&'a str>,
    /// A condition on the session's times that must still hold.
    pub guard: Option<Guard>,
    /// Details for the event's row: a JSON object.
    pub details: Value,
}

/// A condition on times that a change depends on, so that a client that came back at the last moment is not cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The session's last activity was before this time.
    IdleSince(DateTime<Utc>),
    /// The session's `expires_at` is not after this time.
    ExpiredBy(DateTime<Utc>),
    /// The session is INITIATING, and the last attempt to open it was before this time.
    StuckSince(DateTime<Utc>),
}

impl Guard {
    fn holds(self, session: &Session) -> bool {
        match self {
            Self::IdleSince(cutoff) => session.last_activity_at < cutoff,
            Self::ExpiredBy(now) => session.expires_at <= now,
            Self::StuckSince(cutoff) => session.status == Status::Initiating && session.last_activity_at < cutoff,
        }
    }

    fn filter(self, update: UpdateMany<upload_session::Entity>) -> UpdateMany<upload_session::Entity> {
        match self {
            Self::IdleSince(cutoff) => update.filter(Column::LastActivityAt.lt(cutoff)),
            Self::ExpiredBy(now) => update.filter(Column::ExpiresAt.lte(now)),
            Self::StuckSince(cutoff) => {
                update.filter(Column::Status.eq(Status::Initiating)).filter(Column::LastActivityAt.lt(cutoff))
            }
        }
    }
}

impl<'a> Change<'a> {
    pub fn open(actor: &'a Actor, upload_id: Option<&'a str>) -> Self {
        let details = upload_id.map_or_else(|| json!({}), |id| json!({ "multipart_upload_id": id }));
        Self { upload_id, details, ..Self::of(Event::Open, actor) }
    }

    /// `etag`: the object's ETag as reported by the store. `verified`: the store has compared the bytes with the checksum.
    pub fn complete(actor: &'a Actor, etag: &str, verified: bool) -> Self {
        let details = json!({ "etag": etag, "checksum_verified": verified });
        Self { details, ..Self::of(Event::Complete, actor) }
    }

    pub fn cancel(actor: &'a Actor) -> Self {
        Self::of(Event::Cancel, actor)
    }

    pub fn fail(actor: &'a Actor, reason: FailureReason) -> Self {
        Self { reason: Some(reason), ..Self::of(Event::Fail, actor) }
    }

    /// A failure that a caller ordered; `note` is the reason in their words.
    pub fn fail_by_hand(actor: &'a Actor, note: &str) -> Self {
        Self { details: json!({ "note": note }), ..Self::fail(actor, FailureReason::Operator) }
    }

    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    fn of(event: Event, actor: &'a Actor) -> Self {
        Self { event, actor, reason: None, upload_id: None, guard: None, details: json!({}) }
    }
}

/// The outcome of a change. Each variant has the session's current row.
#[derive(Clone, Debug)]
pub enum Outcome {
    Moved(Session),
    /// The change was made before: the idempotent answer.
    Already(Session),
    Refused(Session),
    /// The state allows the change, but its [`Guard`] no longer holds.
    GuardFailed(Session),
}

impl Outcome {
    /// Returns the session's row, for any outcome.
    pub fn session(self) -> Session {
        match self {
            Self::Moved(session) | Self::Already(session) | Self::Refused(session) | Self::GuardFailed(session) => {
                session
            }
        }
    }
}

/// Changes the state of one session, and writes its event row and the rows of `also`, in one transaction.
///
/// `seen` is the session as the caller last read it. The UPDATE repeats in its WHERE clause every fact that the decision
/// depends on. So the database picks the winner of two concurrent callers, and the other gets the outcome for the current
/// row. `also` runs only for the winner.
///
/// # Errors
/// [`Error::NotFound`] if the session's row is gone, and the errors of `also` and the database. Then nothing has changed.
pub async fn transition(
    engine: &Engine,
    seen: &Session,
    change: Change<'_>,
    also: impl AsyncFnOnce(&Tx, &Session) -> Result<()>,
) -> Result<Outcome> {
    let tx = engine.db.begin_for(seen.tenant_id).await?;
    let outcome = transition_in(engine, &tx, seen, &change).await?;
    if let Outcome::Moved(session) = &outcome {
        also(&tx, session).await?;
        tx.commit().await?;
    } else {
        tx.rollback().await;
    }
    Ok(outcome)
}

/// Like [`transition`], for a change without further rows to write. On PostgreSQL, a change that does not end the session is
/// one statement, which is a transaction by itself: each further statement would be a round trip.
///
/// # Errors
/// As [`transition`].
pub(super) async fn transition_alone(engine: &Engine, seen: &Session, change: Change<'_>) -> Result<Outcome> {
    let conn = engine.db.write_conn().of(seen.tenant_id);
    if conn.get_database_backend() == DbBackend::Postgres
        && let Verdict::Move(to) = judge(seen.status, change.event)
        && !to.is_terminal()
    {
        let (now, seq) = (engine.clock.now(), seen.event_seq + 1);
        let entry = entry(seen.status, &change, to, now);
        let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seq, &entry);
        let event = event::rows::row(seen.tenant_id, seen.id, seq, &entry, &link.mac);
        let (moved, told) = (Alias::new("moved"), Alias::new("told"));
        let update = guarded_update(seen, &change, &link, now).into_query().returning_all().to_owned();
        let mut with = WithClause::new();
        with.cte(CommonTableExpression::new().table_name(moved.clone()).query(update).to_owned());
        let insert = insert_where([event], &moved);
        with.cte(CommonTableExpression::new().table_name(told).query(insert).to_owned());
        let select = Query::select().column(Asterisk).from(moved).to_owned().with(with);
        if let Some(row) = conn.query_one(&select).await.map_err(db_error)? {
            engine.db.notify(event::rows::CHANNEL).await;
            return Ok(Outcome::Moved(Session::from_query_result(&row, "").map_err(db_error)?));
        }
    }
    // The database is SQLite, the change ends the session, or `seen` is stale.
    transition(engine, seen, change, async |_, _| Ok(())).await
}

/// Does the work of [`transition`] inside a larger transaction.
pub(super) async fn transition_in(engine: &Engine, tx: &Tx, seen: &Session, change: &Change<'_>) -> Result<Outcome> {
    let now = engine.clock.now();
    let mut seen = seen.clone();
    let mut is_fresh = false;
    loop {
        let to = match judge(seen.status, change.event) {
            Verdict::Move(to) if change.guard.is_none_or(|guard| guard.holds(&seen)) => to,
            // `seen` may be stale.
            _ if !is_fresh => {
                seen = rows::find(tx.conn(), seen.tenant_id, seen.id).await?.ok_or(Error::NotFound)?;
                is_fresh = true;
                continue;
            }
            Verdict::Move(_) => return Ok(Outcome::GuardFailed(seen)),
            Verdict::Already => return Ok(Outcome::Already(seen)),
            Verdict::Refused => return Ok(Outcome::Refused(seen)),
        };
        let (seq, entry) = (seen.event_seq + 1, entry(seen.status, change, to, now));
        let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seq, &entry);
        let moved = guarded_update(&seen, change, &link, now).exec_with_returning(tx.conn()).await.map_err(db_error)?;
        if let Some(session) = moved.into_iter().next() {
            event::rows::insert(tx, seen.tenant_id, seen.id, seq, &entry, link.mac).await?;
            if to.is_terminal() {
                tenant::rows::adjust_usage(tx, seen.tenant_id, -1, 0).await?;
            }
            return Ok(Outcome::Moved(session));
        }
        // Another caller was first: with a change of state (states only move forward), an event, or a heartbeat.
        seen = rows::find(tx.conn(), seen.tenant_id, seen.id).await?.ok_or(Error::NotFound)?;
        is_fresh = true;
    }
}

/// Completes many sessions of one tenant by one guarded UPDATE. Each session must be named once. Returns the new rows of
/// those that moved; [`transition`] tells the outcome of each of the others.
pub(super) async fn complete_all(
    engine: &Engine,
    tx: &Tx,
    changes: &[(&Session, Change<'_>)],
) -> Result<HashMap<SessionId, Session>> {
    let Some((first, change)) = changes.first() else { return Ok(HashMap::new()) };
    let (tenant, row, now) = (first.tenant_id, change.event.row(), engine.clock.now());
    let links = changes.iter().map(|(seen, change)| {
        let entry = entry(seen.status, change, row.to, now);
        let link = engine.keys.link(&seen.chain_head, tenant, seen.id, seen.event_seq + 1, &entry);
        (*seen, entry, link)
    });
    let links: Vec<_> = links.collect();
    let mut moved = guarded_update_of_all(tx, tenant, row, &links, now).await?;

    let (mut sessions, mut events) = (HashMap::new(), Vec::new());
    for (seen, entry, link) in links {
        let Some(intent) = moved.remove(&seen.id) else { continue };
        let seq = seen.event_seq + 1;
        events.push(event::rows::row(tenant, seen.id, seq, &entry, &link.mac));
        let session = Session {
            status: row.to,
            version: seen.version + 1,
            event_seq: seq,
            chain_head: link.head,
            updated_at: now,
            completed_at: Some(now),
            completing_title: intent.completing_title,
            completing_metadata: intent.completing_metadata,
            ..seen.clone()
        };
        sessions.insert(seen.id, session);
    }
    event::rows::insert_all(tx, events).await?;
    if !sessions.is_empty() {
        tenant::rows::adjust_usage(tx, tenant, -i64::try_from(sessions.len()).unwrap_or(i64::MAX), 0).await?;
    }
    Ok(sessions)
}

/// The title and metadata for a session's asset, which another call may have changed since the session was read.
#[derive(Debug, FromQueryResult)]
struct Intent {
    id: SessionId,
    completing_title: Option<String>,
    completing_metadata: Option<Value>,
}

/// Runs [`guarded_update`] for many sessions at once, for [`Event::Complete`].
async fn guarded_update_of_all(
    tx: &Tx,
    tenant: TenantId,
    row: Row,
    links: &[(&Session, Entry<'_>, Link)],
    now: DateTime<Utc>,
) -> Result<HashMap<SessionId, Intent>> {
    let mut bound = vec![tenant.into(), now.into(), row.to.to_value().into()];
    let from: Vec<_> = row.from.iter().map(|from| [from.to_value().into()]).collect();
    let from = values(from, &mut bound);
    let seen = links.iter().map(|(seen, _, link)| [seen.id.into(), seen.event_seq.into(), link.head.clone().into()]);
    let seen = values(seen, &mut bound);
    let sql = format!(
        "UPDATE upload_session SET event_seq = upload_session.event_seq + 1, chain_head = seen.column3, status = $3,
            version = upload_session.version + 1, updated_at = $2, completed_at = $2
        FROM ({seen}) AS seen
        WHERE upload_session.tenant_id = $1 AND upload_session.id = seen.column1
            AND upload_session.event_seq = seen.column2 AND upload_session.status IN ({from})
        RETURNING upload_session.id, upload_session.completing_title, upload_session.completing_metadata"
    );
    let statement = Statement::from_sql_and_values(tx.conn().get_database_backend(), sql, bound);
    let moved = Intent::find_by_statement(statement).all(tx.conn()).await.map_err(db_error)?;
    Ok(moved.into_iter().map(|intent| (intent.id, intent)).collect())
}

/// Builds the event that records a change of state.
pub(super) fn entry<'a>(from: Status, change: &Change<'a>, to: Status, now: DateTime<Utc>) -> Entry<'a> {
    Entry {
        event: change.event.name(),
        from: Some(from),
        to: Some(to),
        actor: change.actor.name(),
        actor_kind: Some(change.actor.kind()),
        reason: change.reason,
        details: change.details.clone(),
        at: now,
    }
}

/// Returns the UPDATE that [`transition`] runs for `seen`, so that its query plan can be inspected.
pub fn statement(engine: &Engine, seen: &Session, change: &Change<'_>) -> UpdateMany<upload_session::Entity> {
    let now = engine.clock.now();
    let entry = entry(seen.status, change, change.event.row().to, now);
    let link = engine.keys.link(&seen.chain_head, seen.tenant_id, seen.id, seen.event_seq + 1, &entry);
    guarded_update(seen, change, &link, now)
}

fn guarded_update(
    seen: &Session,
    change: &Change<'_>,
    link: &Link,
    now: DateTime<Utc>,
) -> UpdateMany<upload_session::Entity> {
    let row = change.event.row();
    let update = event::rows::advancing(seen, link)
        .col_expr(Column::Status, Expr::value(row.to.to_value()))
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .col_expr(Column::UpdatedAt, Expr::value(now));
    let update = match change.event {
        Event::Open => update
            .col_expr(Column::MultipartUploadId, Expr::value(change.upload_id.map(str::to_owned)))
            .col_expr(Column::LastActivityAt, Expr::value(now)),
        Event::Complete => update.col_expr(Column::CompletedAt, Expr::value(now)),
        Event::Fail => update
            .col_expr(Column::FailedAt, Expr::value(now))
            .col_expr(Column::FailureReason, Expr::value(change.reason.map(|reason| reason.to_value()))),
        Event::Cancel => update.col_expr(Column::CancelledAt, Expr::value(now)),
    };
    let update = update.filter(Column::Status.is_in(row.from.iter().copied()));
    match change.guard {
        Some(guard) => guard.filter(update),
        None => update,
    }
}
