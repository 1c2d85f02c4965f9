use chrono::{DateTime, Utc};
use entity::RunId;
use entity::pass_run::{ActiveModel, Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;

use super::{Pass, PassRequest, Report, RunRecord};
use crate::database::{Tx, db_error};
use crate::engine::Engine;
use crate::error::Result;

/// Maximum number of runs of one pass that are kept.
const RUNS_KEPT: u64 = 1_000;

/// Records the start of a run. A pass has one run at a time, so the process of an earlier run without an end is lost: that
/// run is ended with an error.
pub(super) async fn open(engine: &Engine, order: &PassRequest) -> Result<RunRecord> {
    let now = engine.clock.now();
    let tx = engine.db.begin().await?;
    Entity::update_many()
        .col_expr(Column::EndedAt, Expr::value(now))
        .col_expr(Column::Error, Expr::value("the process was lost"))
        .filter(Column::Pass.eq(order.pass.name()))
        .filter(Column::EndedAt.is_null())
        .exec(tx.conn())
        .await
        .map_err(db_error)?;
    let row = ActiveModel {
        id: Set(RunId::new()),
        pass: Set(order.pass.name().to_owned()),
        slot: Set(order.slot),
        actor: Set(order.actor.name().to_owned()),
        actor_kind: Set(Some(order.actor.kind())),
        dry_run: Set(order.dry_run),
        older_than_secs: Set(order.older_than_secs),
        started_at: Set(now),
        ended_at: Set(None),
        found: Set(0),
        done: Set(0),
        failed: Set(0),
        skipped: Set(0),
        error: Set(None),
        details: Set(json!({})),
    };
    let opened = Entity::insert(row).exec_with_returning(tx.conn()).await.map_err(db_error)?;
    tx.commit().await?;
    Ok(opened)
}

/// Records the outcome of a run. Returns `None` if another process has ended the run because it took this process for lost.
pub(super) async fn close(
    tx: &Tx,
    id: RunId,
    now: DateTime<Utc>,
    report: &Report,
    error: Option<&str>,
) -> Result<Option<RunRecord>> {
    let count = |number: u64| Expr::value(i64::try_from(number).unwrap_or(i64::MAX));
    let closed = Entity::update_many()
        .col_expr(Column::EndedAt, Expr::value(now))
        .col_expr(Column::Found, count(report.found))
        .col_expr(Column::Done, count(report.done))
        .col_expr(Column::Failed, count(report.failed))
        .col_expr(Column::Skipped, count(report.skipped))
        .col_expr(Column::Error, Expr::value(error.map(str::to_owned)))
        .col_expr(Column::Details, Expr::value(report.details()))
        .filter(Column::Id.eq(id))
        .filter(Column::EndedAt.is_null())
        .exec_with_returning(tx.conn())
        .await
        .map_err(db_error)?;
    Ok(closed.into_iter().next())
}

/// Deletes the oldest runs of a pass beyond those that are kept.
pub(super) async fn prune(tx: &Tx, pass: Pass) -> Result<()> {
    let newest_to_go = Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Column::Pass.eq(pass.name()))
        .order_by(Column::Id, sea_orm::Order::Desc)
        .limit(1)
        .offset(RUNS_KEPT)
        .to_owned();
    Entity::delete_many()
        .filter(Column::Pass.eq(pass.name()))
        .filter(Expr::col(Column::Id).lte(Expr::SubQuery(None, Box::new(newest_to_go.into()))))
        .exec(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}

pub(super) async fn runs(engine: &Engine, pass: Option<Pass>, limit: u64) -> Result<Vec<RunRecord>> {
    let mut query = Entity::find().order_by_desc(Column::Id).limit(limit);
    if let Some(pass) = pass {
        query = query.filter(Column::Pass.eq(pass.name()));
    }
    query.all(engine.db.search_conn()).await.map_err(db_error)
}
