//! The one statement that changes a session's state.

use chrono::{DateTime, Utc};
use entity::upload_session::{self, Column, FailureReason};
use entity::{SessionId, TenantId};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ActiveEnum, ColumnTrait, EntityTrait, QueryFilter, UpdateMany};

use super::rows;
use super::state::{Event, Verdict, judge};
use crate::database::{Tx, db_error};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event;

type Session = upload_session::Model;

/// A change of state that somebody wants.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    pub event: Event,
    /// Who: a token's `sub`, or `system`.
    pub actor: &'a str,
    /// Why, for [`Event::Fail`].
    pub reason: Option<FailureReason>,
    /// The store's id, for [`Event::Open`] of a multipart session.
    pub upload_id: Option<&'a str>,
}

impl<'a> Change<'a> {
    pub const fn open(actor: &'a str, upload_id: Option<&'a str>) -> Self {
        Self { event: Event::Open, actor, reason: None, upload_id }
    }

    pub const fn complete(actor: &'a str) -> Self {
        Self { event: Event::Complete, actor, reason: None, upload_id: None }
    }

    pub const fn cancel(actor: &'a str) -> Self {
        Self { event: Event::Cancel, actor, reason: None, upload_id: None }
    }

    pub const fn fail(actor: &'a str, reason: FailureReason) -> Self {
        Self { event: Event::Fail, actor, reason: Some(reason), upload_id: None }
    }
}

/// What became of a change; each answer carries the row as it is now.
#[derive(Clone, Debug)]
pub enum Outcome {
    Moved(Session),
    /// Somebody had done it before: the idempotent answer.
    Already(Session),
    Refused(Session),
}

/// Changes the state of one session, with its event row and whatever rows `also` writes, in one transaction.
///
/// The UPDATE repeats in its WHERE every fact that the decision rests on, so of two callers at once the database picks
/// the winner, and the other is told what it found. `also` runs for the winner only.
///
/// # Errors
/// [`Error::NotFound`] where the tenant has no such session, and whatever `also` or the database answers; then nothing
/// has changed.
pub async fn transition(
    engine: &Engine,
    tenant: TenantId,
    id: SessionId,
    change: Change<'_>,
    also: impl AsyncFnOnce(&Tx, &Session) -> Result<()>,
) -> Result<Outcome> {
    let tx = engine.db.begin().await?;
    let outcome = step(engine, &tx, tenant, id, &change).await?;
    if let Outcome::Moved(session) = &outcome {
        also(&tx, session).await?;
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(outcome)
}

/// The same inside a transaction that has more to do.
pub(super) async fn step(
    engine: &Engine,
    tx: &Tx,
    tenant: TenantId,
    id: SessionId,
    change: &Change<'_>,
) -> Result<Outcome> {
    let now = engine.clock.now();
    loop {
        let moved = guarded_update(id, tenant, change, now).exec_with_returning(tx.conn()).await.map_err(db_error)?;
        if let Some(session) = moved.into_iter().next() {
            event::rows::append_move(tx, &session, change, now).await?;
            return Ok(Outcome::Moved(session));
        }
        let session = rows::find(tx.conn(), tenant, id).await?.ok_or(Error::NotFound)?;
        match judge(session.status, change.event) {
            Verdict::Already => return Ok(Outcome::Already(session)),
            Verdict::Refused => return Ok(Outcome::Refused(session)),
            // On PostgreSQL another transaction may commit between the two statements, and make possible what was
            // not. States only move forward, so this ends.
            Verdict::Move(_) => {}
        }
    }
}

fn guarded_update(
    id: SessionId,
    tenant: TenantId,
    change: &Change<'_>,
    now: DateTime<Utc>,
) -> UpdateMany<upload_session::Entity> {
    let row = change.event.row();
    let update = upload_session::Entity::update_many()
        .col_expr(Column::Status, Expr::value(row.to.to_value()))
        .col_expr(Column::Version, Expr::col(Column::Version).add(1))
        .col_expr(Column::EventSeq, Expr::col(Column::EventSeq).add(1))
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
    update
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::Id.eq(id))
        .filter(Column::Status.is_in(row.from.iter().copied()))
}
