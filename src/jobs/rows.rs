use chrono::{DateTime, TimeDelta, Utc};
use entity::JobId;
use entity::job::{ActiveModel, Column, Entity, Model};
use sea_orm::sea_query::{
    Alias, CommonTableExpression, Expr, ExprTrait, LockBehavior, LockType, OnConflict, Order, Query,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, TryInsertResult, UpdateMany,
};
use uuid::Uuid;

use super::{Filter, Job, Kind, Lease, NewJob, State};
use crate::clock::{CLOCKS_DIFFER_MAX, seconds};
use crate::database::{Tx, db_error, is_unique_violation};
use crate::engine::Engine;
use crate::error::Result;

/// Puts a job into the queue, in the transaction that makes it necessary; `None` where its dedupe key is taken. Its
/// commit wakes this process's worker.
pub async fn enqueue(engine: &Engine, tx: &Tx, job: &NewJob) -> Result<Option<JobId>> {
    let row = new_row(engine, job);
    let id = insert(tx.conn(), row).await?;
    if id.is_some() {
        tx.ring_after(&engine.wake);
    }
    Ok(id)
}

/// Makes those jobs due that are due later than any lease or pause may last: a clock that was ahead has put them there, and
/// they would keep others away until then. Answers to how many.
pub(super) async fn bring_back(engine: &Engine) -> Result<u64> {
    let now = engine.clock.now();
    let settings = &engine.settings.jobs;
    let latest = now + seconds(settings.lease_secs) + seconds(settings.backoff_max_secs) + CLOCKS_DIFFER_MAX;
    let too_late = Condition::all().add(Column::DeadAt.is_null()).add(Column::RunAt.gt(latest));
    let is_there = Entity::find().filter(too_late.clone()).one(engine.db.search_conn()).await.map_err(db_error)?;
    if is_there.is_none() {
        return Ok(0);
    }
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(now))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>));
    let brought = update.filter(too_late).exec(engine.db.write_conn()).await.map_err(db_error)?;
    Ok(brought.rows_affected)
}

/// Deletes the dead jobs in whose place this one is.
pub(crate) async fn remove_dead(tx: &Tx, job: &NewJob) -> Result<()> {
    let delete = Entity::delete_many()
        .filter(Column::Kind.eq(job.kind.name()))
        .filter(Column::DedupeKey.eq(job.dedupe_key.as_deref()))
        .filter(Column::DeadAt.is_not_null());
    delete.exec(tx.conn()).await.map(drop).map_err(db_error)
}

/// Puts a job into the queue that this process has already; `None` where its dedupe key is taken.
pub(super) async fn insert_claimed(engine: &Engine, tx: &Tx, job: &NewJob) -> Result<Option<Lease>> {
    let token = Uuid::new_v4();
    let row = ActiveModel {
        attempts: Set(1),
        run_at: Set(engine.clock.now() + lease_length(engine)),
        lease_token: Set(Some(token)),
        ..new_row(engine, job)
    };
    let Some(id) = insert(tx.conn(), row).await? else { return Ok(None) };
    let job = Entity::find_by_id(id).one(tx.conn()).await.map_err(db_error)?;
    Ok(job.map(|job| Lease { job, token }))
}

fn new_row(engine: &Engine, job: &NewJob) -> ActiveModel {
    let now = engine.clock.now();
    ActiveModel {
        id: Set(JobId::new()),
        kind: Set(job.kind.name().to_owned()),
        payload: Set(job.payload.clone()),
        priority: Set(job.priority),
        dedupe_key: Set(job.dedupe_key.clone()),
        attempts: Set(0),
        max_attempts: Set(i32::try_from(engine.settings.jobs.max_attempts).unwrap_or(i32::MAX)),
        run_at: Set(job.run_at),
        lease_token: Set(None),
        last_error: Set(None),
        dead_at: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
    }
}

async fn insert(conn: &impl ConnectionTrait, row: ActiveModel) -> Result<Option<JobId>> {
    let id = *row.id.as_ref();
    let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned()).try_insert();
    match insert.exec_without_returning(conn).await.map_err(db_error)? {
        TryInsertResult::Inserted(1..) => Ok(Some(id)),
        TryInsertResult::Inserted(_) | TryInsertResult::Conflicted | TryInsertResult::Empty => Ok(None),
    }
}

fn lease_length(engine: &Engine) -> TimeDelta {
    seconds(engine.settings.jobs.lease_secs)
}

/// Claims up to `at_most` jobs that are due, first come first served within a priority; none of `except`. A job whose
/// lease has ended is due like any.
pub(super) async fn claim(engine: &Engine, kind: Kind, at_most: usize, except: &[JobId]) -> Result<Vec<Lease>> {
    let now = engine.clock.now();
    let token = Uuid::new_v4();
    // In a WITH, because PostgreSQL may run a sub-select of an IN more than once, and would lock more rows each time.
    // SQLite has no such locks and needs none: the whole statement has its turn.
    let due = Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Column::Kind.eq(kind.name()))
        .and_where(Column::DeadAt.is_null())
        .and_where(Column::RunAt.lte(now))
        .and_where_option((!except.is_empty()).then(|| Column::Id.is_not_in(except.iter().copied())))
        .order_by(Column::Priority, Order::Asc)
        .order_by(Column::RunAt, Order::Asc)
        .limit(at_most as u64)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let named = Alias::new("due");
    let ids = Query::select().column(Column::Id).from(named.clone()).to_owned();
    let update = Query::update()
        .table(Entity)
        .value(Column::LeaseToken, token)
        .value(Column::RunAt, now + lease_length(engine))
        .value(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .value(Column::UpdatedAt, now)
        .and_where(Expr::col(Column::Id).in_subquery(ids))
        .returning(Query::returning().all())
        .to_owned();
    let claim = update.with(CommonTableExpression::new().table_name(named).query(due).to_owned().into());
    let conn = engine.db.write_conn();
    let statement = conn.get_database_backend().build(&claim);
    let mut jobs = Model::find_by_statement(statement).all(conn).await.map_err(db_error)?;
    // RETURNING keeps no order.
    jobs.sort_by_key(|job| (job.priority, job.created_at, job.id));
    Ok(jobs.into_iter().map(|job| Lease { job, token }).collect())
}

/// This lease's job, as long as nobody else has claimed it.
fn of_lease(lease: &Lease) -> Condition {
    Condition::all().add(Column::Id.eq(lease.job.id)).add(Column::LeaseToken.eq(lease.token))
}

/// Moves the end of the lease on; `false` where it is lost.
pub(super) async fn extend(engine: &Engine, lease: &Lease) -> Result<bool> {
    let end = engine.clock.now() + lease_length(engine);
    let update = update(engine).col_expr(Column::RunAt, Expr::value(end));
    change(engine, update.filter(of_lease(lease))).await
}

/// Deletes the job; `false` where the lease is lost.
pub(super) async fn delete(conn: &impl ConnectionTrait, lease: &Lease) -> Result<bool> {
    let deleted = Entity::delete_many().filter(of_lease(lease)).exec(conn).await.map_err(db_error)?;
    Ok(deleted.rows_affected > 0)
}

/// The job failed and is due again at `run_at`.
pub(super) async fn postpone(engine: &Engine, lease: &Lease, error: &str, run_at: DateTime<Utc>) -> Result<bool> {
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(run_at))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(Column::LastError, Expr::value(error));
    change(engine, update.filter(of_lease(lease))).await
}

/// The job has failed for good.
pub(super) async fn bury(engine: &Engine, lease: &Lease, error: &str) -> Result<bool> {
    let update = update(engine)
        .col_expr(Column::DeadAt, Expr::value(engine.clock.now()))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(Column::LastError, Expr::value(error));
    change(engine, update.filter(of_lease(lease))).await
}

/// Gives the job back as if it had not been claimed.
pub(super) async fn release(engine: &Engine, lease: &Lease) -> Result<bool> {
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(engine.clock.now()))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).sub(1));
    change(engine, update.filter(of_lease(lease))).await
}

fn update(engine: &Engine) -> UpdateMany<Entity> {
    Entity::update_many().col_expr(Column::UpdatedAt, Expr::value(engine.clock.now()))
}

async fn change(engine: &Engine, update: UpdateMany<Entity>) -> Result<bool> {
    let conn = engine.db.write_conn();
    Ok(update.exec(conn).await.map_err(db_error)?.rows_affected > 0)
}

pub(super) async fn list(engine: &Engine, filter: Filter, before: Option<JobId>, limit: u64) -> Result<Vec<Job>> {
    let mut query = Entity::find().order_by_desc(Column::Id).limit(limit);
    if let Some(kind) = filter.kind {
        query = query.filter(Column::Kind.eq(kind.name()));
    }
    if let Some(state) = filter.state {
        query = query.filter(in_state(state, engine.clock.now()));
    }
    if let Some(id) = before {
        query = query.filter(Column::Id.lt(id));
    }
    query.all(engine.db.search_conn()).await.map_err(db_error)
}

/// By kind.
pub(super) async fn count(engine: &Engine, state: State) -> Result<Vec<(String, i64)>> {
    let query = Entity::find().select_only().column(Column::Kind).column_as(Column::Id.count(), "jobs");
    let query = query.filter(in_state(state, engine.clock.now())).group_by(Column::Kind).order_by_asc(Column::Kind);
    query.into_tuple().all(engine.db.count_conn()).await.map_err(db_error)
}

/// [`State::of`] in SQL.
fn in_state(state: State, now: DateTime<Utc>) -> Condition {
    let alive = Condition::all().add(Column::DeadAt.is_null());
    match state {
        State::Waiting => alive.add(Condition::any().add(Column::LeaseToken.is_null()).add(Column::RunAt.lte(now))),
        State::Running => alive.add(Column::LeaseToken.is_not_null()).add(Column::RunAt.gt(now)),
        State::Dead => Condition::all().add(Column::DeadAt.is_not_null()),
    }
}

pub(super) async fn find(engine: &Engine, id: JobId) -> Result<Option<Job>> {
    Entity::find_by_id(id).one(engine.db.conn()).await.map_err(db_error)
}

/// What became of a retry.
pub(super) enum Retried {
    Due(Job),
    /// It is running, or gone.
    NotThere,
    /// A job with its dedupe key is there that is not dead.
    KeyTaken,
}

/// Makes a job that nobody is working on due now, with all its attempts before it.
pub(super) async fn retry(engine: &Engine, tx: &Tx, id: JobId) -> Result<Retried> {
    let now = engine.clock.now();
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(now))
        .col_expr(Column::Attempts, Expr::value(0))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(Column::DeadAt, Expr::value(None::<DateTime<Utc>>))
        .filter(Column::Id.eq(id))
        .filter(nobody_is_at_it(now));
    match update.exec_with_returning(tx.conn()).await {
        Ok(jobs) => Ok(jobs.into_iter().next().map_or(Retried::NotThere, Retried::Due)),
        Err(error) if is_unique_violation(&error) => Ok(Retried::KeyTaken),
        Err(error) => Err(db_error(error)),
    }
}

/// Deletes a job that nobody is working on; `None` where somebody is, or it is gone.
pub(super) async fn discard(engine: &Engine, tx: &Tx, id: JobId) -> Result<Option<Job>> {
    let delete = Entity::delete_many().filter(Column::Id.eq(id)).filter(nobody_is_at_it(engine.clock.now()));
    let deleted = delete.exec_with_returning(tx.conn()).await.map_err(db_error)?;
    Ok(deleted.into_iter().next())
}

fn nobody_is_at_it(now: DateTime<Utc>) -> Condition {
    Condition::any().add(in_state(State::Waiting, now)).add(in_state(State::Dead, now))
}
