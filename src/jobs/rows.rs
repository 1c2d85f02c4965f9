use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use entity::job::{ActiveModel, Column, Entity, Model};
use entity::{JobId, JobKind, TenantId};
use sea_orm::sea_query::{
    Alias, CommonTableExpression, Expr, ExprTrait, LockBehavior, LockType, OnConflict, Order, Query, SelectStatement,
    UnionType, WithClause,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Select, Statement, TryInsertResult, UpdateMany, Value,
};
use tracing::debug;
use uuid::Uuid;

use super::share::{Share, Turn, divide};
use super::{Filter, Job, Lease, NewJob, State};
use crate::clock::{CLOCKS_DIFFER_MAX, seconds};
use crate::database::{Tx, db_error, is_unique_violation, values};
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};

/// Maximum number of tenants that one query covers; the next query continues from the last of them.
const SHARES_MAX: usize = 200;
/// The tenant id of the deployment's own jobs.
const NOBODY: TenantId = TenantId(Uuid::nil());
/// Maximum number of jobs that one statement makes claimable.
const QUEUED_AT_ONCE: u64 = 1_000;

/// Enqueues a job in the transaction that makes it necessary. Returns `None` if its dedupe key is taken. The commit wakes
/// this process's worker.
pub async fn enqueue(engine: &Engine, tx: &Tx, job: &NewJob) -> Result<Option<JobId>> {
    let row = new_row(engine, job);
    let id = insert(tx.conn(), row).await?;
    if id.is_some() {
        tx.wake_after(&engine.wake);
    }
    Ok(id)
}

/// Enqueues many jobs like [`enqueue`]. Skips those whose dedupe keys are taken.
pub async fn enqueue_all(engine: &Engine, tx: &Tx, jobs: &[NewJob]) -> Result<()> {
    let rows = jobs.iter().map(|job| new_row(engine, job));
    let insert = Entity::insert_many(rows).on_conflict(OnConflict::new().do_nothing().to_owned());
    insert.exec_without_returning(tx.conn()).await.map_err(db_error)?;
    tx.wake_after(&engine.wake);
    Ok(())
}

/// Makes jobs due now that are due later than any lease or pause may last. A clock that was ahead has set their times, and
/// they would block other jobs until then. Returns the number of these jobs.
pub(super) async fn bring_back(engine: &Engine) -> Result<u64> {
    let now = engine.clock.now();
    let settings = &engine.settings.jobs;
    let latest = now + seconds(settings.lease_secs) + seconds(settings.backoff_max_secs) + CLOCKS_DIFFER_MAX;
    let too_late = is_waiting().add(Column::RunAt.gt(latest));
    // Ordered like the index, so that PostgreSQL uses it, whatever its statistics say about the number of rows.
    let first = Entity::find().filter(too_late.clone()).order_by_asc(Column::RunAt);
    let is_there = first.one(engine.db.search_conn()).await.map_err(db_error)?;
    if is_there.is_none() {
        return Ok(0);
    }
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(now))
        .col_expr(Column::Queued, Expr::value(true))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>));
    let brought = update.filter(too_late).exec(engine.db.write_conn()).await.map_err(db_error)?;
    Ok(brought.rows_affected)
}

/// Repeats the condition of the index on jobs that are not claimable yet, word for word, so that the index is used.
fn is_waiting() -> Condition {
    Condition::all().add(Expr::col(Column::Queued).not()).add(Column::DeadAt.is_null())
}

/// Selects the first job that is due and not claimable yet.
pub fn any_due(now: DateTime<Utc>) -> Select<Entity> {
    Entity::find().filter(is_waiting()).filter(Column::RunAt.lte(now)).order_by_asc(Column::RunAt).limit(1)
}

/// Makes due jobs claimable, the earliest first, at most [`QUEUED_AT_ONCE`]. A job whose lease has expired stays with its
/// worker until another worker claims it.
pub(super) async fn queue_due(engine: &Engine) -> Result<()> {
    let now = engine.clock.now();
    // A read first, without a write: mostly no job is due.
    if any_due(now).one(engine.db.conn()).await.map_err(db_error)?.is_none() {
        return Ok(());
    }
    let due = Query::select()
        .column(Column::Id)
        .from(Entity)
        .cond_where(is_waiting())
        .and_where(Column::RunAt.lte(now))
        .order_by(Column::RunAt, Order::Asc)
        .limit(QUEUED_AT_ONCE)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let named = Alias::new("due");
    let ids = Query::select().column(Column::Id).from(named.clone()).to_owned();
    let update =
        Query::update().table(Entity).value(Column::Queued, true).and_where(Column::Id.in_subquery(ids)).to_owned();
    let queue = update.with(CommonTableExpression::new().table_name(named).query(due).to_owned().into());
    let conn = engine.db.write_conn();
    conn.execute(&queue).await.map(drop).map_err(db_error)
}

/// Returns dead jobs of these kinds, the oldest first, starting after `after`.
pub(crate) async fn dead(engine: &Engine, kinds: &[JobKind], after: Option<JobId>, limit: u64) -> Result<Vec<Job>> {
    let mut query = Entity::find()
        .filter(Column::DeadAt.is_not_null())
        .filter(Column::Kind.is_in(kinds.iter().map(|kind| kind.name())));
    if let Some(after) = after {
        query = query.filter(Column::Id.gt(after));
    }
    query.order_by_asc(Column::Id).limit(limit).all(engine.db.search_conn()).await.map_err(db_error)
}

/// Returns those of `keys` that are the dedupe key of a job that is not dead.
pub(crate) async fn alive(engine: &Engine, keys: &[String]) -> Result<HashSet<String>> {
    having(engine, keys, Column::DeadAt.is_null()).await
}

/// Returns those of `keys` that are the dedupe key of a dead job.
pub(crate) async fn buried(engine: &Engine, keys: &[String]) -> Result<HashSet<String>> {
    having(engine, keys, Column::DeadAt.is_not_null()).await
}

async fn having(engine: &Engine, keys: &[String], how: Expr) -> Result<HashSet<String>> {
    let query = Entity::find()
        .select_only()
        .column(Column::DedupeKey)
        .filter(how)
        .filter(Column::DedupeKey.is_not_null())
        .filter(Column::DedupeKey.is_in(keys));
    let found: Vec<String> = query.into_tuple().all(engine.db.search_conn()).await.map_err(db_error)?;
    Ok(found.into_iter().collect())
}

/// Deletes the dead jobs that this job replaces: those with its dedupe key.
pub(crate) async fn remove_dead(tx: &Tx, job: &NewJob) -> Result<()> {
    let delete = Entity::delete_many()
        .filter(Column::DedupeKey.eq(job.dedupe_key.as_deref()))
        .filter(Column::DeadAt.is_not_null());
    delete.exec(tx.conn()).await.map(drop).map_err(db_error)
}

/// Enqueues a job that this process has already claimed. Returns `None` if its dedupe key is taken.
pub(super) async fn insert_claimed(engine: &Engine, tx: &Tx, job: &NewJob) -> Result<Option<Lease>> {
    let token = Uuid::new_v4();
    let row = ActiveModel {
        attempts: Set(1),
        run_at: Set(engine.clock.now() + lease_length(engine)),
        queued: Set(false),
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
        tenant_id: Set(job.tenant.unwrap_or(NOBODY)),
        payload: Set(job.payload.clone()),
        priority: Set(job.priority),
        dedupe_key: Set(job.dedupe_key.clone()),
        attempts: Set(0),
        max_attempts: Set(i32::try_from(engine.settings.jobs.max_attempts).unwrap_or(i32::MAX)),
        run_at: Set(job.run_at),
        queued: Set(job.run_at <= now),
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

/// Claims up to `at_most` due jobs, none of `except`. [`divide`] decides how many of each tenant; one tenant's jobs go first
/// come, first served within a priority. A job whose lease has expired is due like any other. While other tenants are
/// active, a tenant gets at most a quarter of one process's places, counted over all processes: they share one store and one
/// database.
///
/// The cost grows with the number of places and of waiting tenants, of which one query covers [`SHARES_MAX`], and not with
/// the number of waiting jobs.
///
/// # Errors
/// Database errors, if nothing was claimed yet. After jobs were claimed, an error only ends the claiming, and the claimed
/// jobs are returned.
pub(super) async fn claim(
    engine: &Engine,
    kind: JobKind,
    at_most: usize,
    except: &[JobId],
    turn: &mut Turn,
) -> Result<Vec<Lease>> {
    let token = Uuid::new_v4();
    let active = engine.db.active();
    let beside_others = (engine.settings.jobs.concurrency / 4).max(1);
    let most = |tenant| if active.is_beside(Some(tenant)) { beside_others } else { usize::MAX };
    let mut jobs = Vec::new();
    while jobs.len() < at_most {
        let from = turn.0;
        let round = async {
            let shares = shares(engine, kind, except, from).await?;
            let divided = divide(&shares, at_most - jobs.len(), most);
            Ok::<_, Error>((claim_of(engine, kind, &divided, except, token).await?, shares))
        };
        let (claimed, shares) = match round.await {
            Ok(claimed) => claimed,
            Err(error) if jobs.is_empty() => return Err(error),
            // Otherwise the jobs claimed so far would be idle until their leases expire, with an attempt used up.
            Err(error) => {
                debug!(error = with_causes(&error), "fewer jobs are claimed than there are places");
                break;
            }
        };
        let is_all = shares.len() < SHARES_MAX;
        turn.0 = shares.last().filter(|_| !is_all).map(|last| last.tenant);
        let is_none = claimed.is_empty();
        jobs.extend(claimed);
        // A single tenant was already asked for as many jobs as there are places.
        if from.is_none() && (is_none || is_all && shares.len() <= 1) {
            break;
        }
    }
    // RETURNING keeps no order.
    jobs.sort_by_key(|job| (job.priority, job.created_at, job.id));
    Ok(jobs.into_iter().map(|job| Lease { job, token }).collect())
}

/// Repeats the condition of the index on claimable jobs, word for word, so that the index is used. A job claimed by an older
/// server, which does not know `queued`, is claimable again when its lease expires.
const CLAIMABLE: &str = "kind = $1 AND queued AND dead_at IS NULL AND (lease_token IS NULL OR run_at <= $2)";

#[derive(Debug, FromQueryResult)]
struct ShareRow {
    tenant_id: TenantId,
    running: i64,
    since: Option<DateTime<Utc>>,
}

/// Returns those of `kinds` that have claimable jobs.
pub(super) async fn waiting(engine: &Engine, kinds: &[JobKind]) -> Result<Vec<JobKind>> {
    let conn = engine.db.conn();
    let query = find_waiting(conn.get_database_backend(), kinds, engine.clock.now());
    let rows = conn.query_all_raw(query).await.map_err(db_error)?;
    let names: Vec<String> =
        rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>().map_err(db_error)?;
    Ok(names.iter().filter_map(|name| JobKind::named(name)).collect())
}

/// Needs one index lookup for each kind.
pub fn find_waiting(backend: DbBackend, kinds: &[JobKind], now: DateTime<Utc>) -> Statement {
    let mut bound: Vec<Value> = vec![now.into()];
    let kinds = values(kinds.iter().map(|kind| [kind.name().into()]), &mut bound);
    // Ordered, so that PostgreSQL uses the index with this order, even if it expects most rows to match.
    let sql = format!(
        "SELECT DISTINCT kinds.column1 FROM ({kinds}) AS kinds
        WHERE (SELECT tenant_id FROM job WHERE kind = kinds.column1 AND queued AND dead_at IS NULL
            AND (lease_token IS NULL OR run_at <= $1) ORDER BY tenant_id LIMIT 1) IS NOT NULL"
    );
    Statement::from_sql_and_values(backend, sql, bound)
}

/// Runs [`find_shares`].
async fn shares(engine: &Engine, kind: JobKind, except: &[JobId], from: Option<TenantId>) -> Result<Vec<Share>> {
    let conn = engine.db.conn();
    let query = find_shares(conn.get_database_backend(), kind, engine.clock.now(), except, from);
    let rows = ShareRow::find_by_statement(query).all(conn).await.map_err(db_error)?;
    // One statement sees one state of the table, so each tenant that it finds has a job.
    let share = |row: ShareRow| Some(Share { tenant: row.tenant_id, running: row.running, since: row.since? });
    Ok(rows.into_iter().filter_map(share).collect())
}

/// Selects the tenants that have claimable jobs of this kind, in the order of their ids, starting with `from`, at most 200.
/// Needs index lookups only, a few for each tenant.
pub fn find_shares(
    backend: DbBackend,
    kind: JobKind,
    now: DateTime<Utc>,
    except: &[JobId],
    from: Option<TenantId>,
) -> Statement {
    let mut values: Vec<Value> = vec![kind.name().into(), now.into(), from.unwrap_or(NOBODY).into()];
    let mut claimable = CLAIMABLE.to_owned();
    if !except.is_empty() {
        let places: Vec<String> = (0..except.len()).map(|n| format!("${}", values.len() + 1 + n)).collect();
        claimable.push_str(&format!(" AND id NOT IN ({})", places.join(", ")));
        values.extend(except.iter().map(|id| Value::from(*id)));
    }
    let next = |bound: &str| {
        format!("(SELECT tenant_id FROM job WHERE {claimable} AND tenant_id {bound} ORDER BY tenant_id LIMIT 1)")
    };
    let (first, next) = (next(">= $3"), next("> share.tenant_id"));
    let sql = format!(
        "WITH RECURSIVE share (tenant_id, place) AS (
            SELECT {first}, 1
            UNION ALL
            SELECT {next}, share.place + 1 FROM share WHERE share.tenant_id IS NOT NULL AND share.place < {SHARES_MAX}
        )
        SELECT share.tenant_id AS tenant_id,
            (SELECT count(*) FROM job WHERE kind = $1 AND tenant_id = share.tenant_id
                AND lease_token IS NOT NULL AND dead_at IS NULL AND run_at > $2) AS running,
            (SELECT run_at FROM job WHERE {claimable} AND tenant_id = share.tenant_id
                ORDER BY priority, run_at, id LIMIT 1) AS since
        FROM share WHERE share.tenant_id IS NOT NULL"
    );
    Statement::from_sql_and_values(backend, sql, values)
}

/// Claims the given number of jobs of each tenant.
async fn claim_of(
    engine: &Engine,
    kind: JobKind,
    of: &[(TenantId, u64)],
    except: &[JobId],
    token: Uuid,
) -> Result<Vec<Job>> {
    let now = engine.clock.now();
    // In a WITH, because PostgreSQL may run the sub-select of an IN more than once and would lock more rows each time.
    // SQLite has no row locks and needs none: it runs one writing statement at a time.
    let mut due = WithClause::new();
    let mut ids: Option<SelectStatement> = None;
    for (number, (tenant, most)) in of.iter().enumerate() {
        let named = Alias::new(format!("due_{number}"));
        let query = claimable(kind, *tenant, now, except, *most);
        due.cte(CommonTableExpression::new().table_name(named.clone()).query(query).to_owned());
        let more = Query::select().column(Column::Id).from(named).to_owned();
        ids = Some(match ids {
            None => more,
            Some(mut ids) => ids.union(UnionType::All, more).to_owned(),
        });
    }
    let Some(ids) = ids else { return Ok(vec![]) };
    let update = Query::update()
        .table(Entity)
        .value(Column::LeaseToken, token)
        .value(Column::RunAt, now + lease_length(engine))
        .value(Column::Queued, false)
        .value(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .value(Column::UpdatedAt, now)
        .and_where(Column::Id.in_subquery(ids))
        .returning(Query::returning().all())
        .to_owned();
    let conn = engine.db.write_conn();
    let statement = conn.get_database_backend().build(&update.with(due));
    Model::find_by_statement(statement).all(conn).await.map_err(db_error)
}

/// Selects and locks the first claimable jobs of a tenant. Skips jobs that others have locked.
pub fn claimable(kind: JobKind, tenant: TenantId, now: DateTime<Utc>, except: &[JobId], limit: u64) -> SelectStatement {
    Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Column::Kind.eq(kind.name()))
        .and_where(Column::TenantId.eq(tenant))
        .and_where(Expr::col(Column::Queued))
        .and_where(Column::DeadAt.is_null())
        .cond_where(Condition::any().add(Column::LeaseToken.is_null()).add(Column::RunAt.lte(now)))
        .and_where_option((!except.is_empty()).then(|| Column::Id.is_not_in(except.iter().copied())))
        .order_by(Column::Priority, Order::Asc)
        .order_by(Column::RunAt, Order::Asc)
        .order_by(Column::Id, Order::Asc)
        .limit(limit)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned()
}

/// Matches the job of this lease, unless another worker has claimed it.
fn of_lease(lease: &Lease) -> Condition {
    Condition::all().add(Column::Id.eq(lease.job.id)).add(Column::LeaseToken.eq(lease.token))
}

/// Extends the lease. Returns `false` if it is lost.
pub(super) async fn extend(engine: &Engine, lease: &Lease) -> Result<bool> {
    let end = engine.clock.now() + lease_length(engine);
    let update = update(engine).col_expr(Column::RunAt, Expr::value(end)).col_expr(Column::Queued, Expr::value(false));
    change(engine, update.filter(of_lease(lease))).await
}

/// Deletes the job. Returns `false` if the lease is lost.
pub(super) async fn delete(conn: &impl ConnectionTrait, lease: &Lease) -> Result<bool> {
    let deleted = Entity::delete_many().filter(of_lease(lease)).exec(conn).await.map_err(db_error)?;
    Ok(deleted.rows_affected > 0)
}

/// Deletes the jobs whose leases are not lost, and returns their ids.
pub(super) async fn delete_all(engine: &Engine, leases: &[Lease]) -> Result<HashSet<JobId>> {
    let mut bound = Vec::new();
    let named = values(leases.iter().map(|lease| [lease.job.id.into()]), &mut bound);
    let held = values(leases.iter().map(|lease| [lease.job.id.into(), lease.token.into()]), &mut bound);
    // By the primary key first, so that its index is used whatever the row estimates are; then by the lease.
    let sql = format!("DELETE FROM job WHERE id IN ({named}) AND (id, lease_token) IN ({held}) RETURNING id");
    let conn = engine.db.write_conn();
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), sql, bound);
    let deleted = conn.query_all_raw(statement).await.map_err(db_error)?;
    deleted.iter().map(|row| row.try_get_by_index(0).map_err(db_error)).collect()
}

/// Records a failed attempt; the job is due again at `run_at`.
pub(super) async fn postpone(engine: &Engine, lease: &Lease, error: &str, run_at: DateTime<Utc>) -> Result<bool> {
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(run_at))
        .col_expr(Column::Queued, Expr::value(false))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(Column::LastError, Expr::value(error));
    change(engine, update.filter(of_lease(lease))).await
}

/// Marks the job as dead.
pub(super) async fn make_dead(engine: &Engine, lease: &Lease, error: &str) -> Result<bool> {
    let update = update(engine)
        .col_expr(Column::DeadAt, Expr::value(engine.clock.now()))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(Column::LastError, Expr::value(error));
    change(engine, update.filter(of_lease(lease))).await
}

/// Gives the job back as if this attempt had never been claimed.
pub(super) async fn release(engine: &Engine, lease: &Lease) -> Result<bool> {
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(engine.clock.now()))
        .col_expr(Column::Queued, Expr::value(true))
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

/// Counts the jobs in this state by kind.
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

/// The outcome of a retry.
pub(super) enum Retried {
    Due(Box<Job>),
    /// The job is running, or gone.
    NotThere,
    /// There is another job with its dedupe key that is not dead.
    KeyTaken,
}

/// Makes a job that is not running due now, with all its attempts left.
pub(super) async fn retry(engine: &Engine, tx: &Tx, id: JobId) -> Result<Retried> {
    let now = engine.clock.now();
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(now))
        .col_expr(Column::Queued, Expr::value(true))
        .col_expr(Column::Attempts, Expr::value(0))
        .col_expr(Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(Column::DeadAt, Expr::value(None::<DateTime<Utc>>))
        .filter(Column::Id.eq(id))
        .filter(nobody_is_at_it(now));
    match update.exec_with_returning(tx.conn()).await {
        Ok(jobs) => Ok(jobs.into_iter().next().map_or(Retried::NotThere, |job| Retried::Due(Box::new(job)))),
        Err(error) if is_unique_violation(&error) => Ok(Retried::KeyTaken),
        Err(error) => Err(db_error(error)),
    }
}

/// Deletes a job that is not running. Returns `None` if it is running or gone.
pub(super) async fn discard(engine: &Engine, tx: &Tx, id: JobId) -> Result<Option<Job>> {
    let delete = Entity::delete_many().filter(Column::Id.eq(id)).filter(nobody_is_at_it(engine.clock.now()));
    let deleted = delete.exec_with_returning(tx.conn()).await.map_err(db_error)?;
    Ok(deleted.into_iter().next())
}

fn nobody_is_at_it(now: DateTime<Utc>) -> Condition {
    Condition::any().add(in_state(State::Waiting, now)).add(in_state(State::Dead, now))
}
