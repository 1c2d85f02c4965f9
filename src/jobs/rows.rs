use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use entity::job::{ActiveModel, Column, Entity, Model};
use entity::{JobId, TenantId};
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
use super::{Filter, Job, Kind, Lease, NewJob, State};
use crate::clock::{CLOCKS_DIFFER_MAX, seconds};
use crate::database::{Tx, db_error, is_unique_violation, values};
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};

/// Tenants that one look for jobs reaches; the next one goes on after them.
const SHARES_MAX: usize = 200;
/// Whose the deployment's own jobs are.
const NOBODY: TenantId = TenantId(Uuid::nil());
/// Jobs that one statement puts among those that may be claimed.
const QUEUED_AT_ONCE: u64 = 1_000;

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

/// The same with many jobs; those whose dedupe keys are taken are left out.
pub async fn enqueue_all(engine: &Engine, tx: &Tx, jobs: &[NewJob]) -> Result<()> {
    let rows = jobs.iter().map(|job| new_row(engine, job));
    let insert = Entity::insert_many(rows).on_conflict(OnConflict::new().do_nothing().to_owned());
    insert.exec_without_returning(tx.conn()).await.map_err(db_error)?;
    tx.ring_after(&engine.wake);
    Ok(())
}

/// Makes those jobs due that are due later than any lease or pause may last: a clock that was ahead has put them there, and
/// they would keep others away until then. Answers to how many.
pub(super) async fn bring_back(engine: &Engine) -> Result<u64> {
    let now = engine.clock.now();
    let settings = &engine.settings.jobs;
    let latest = now + seconds(settings.lease_secs) + seconds(settings.backoff_max_secs) + CLOCKS_DIFFER_MAX;
    let too_late = is_waiting().add(Column::RunAt.gt(latest));
    // In the order of the index, so that PostgreSQL goes by it, whatever its statistics say of how many there are.
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

/// In the words of the index that has the jobs whose time has not come.
fn is_waiting() -> Condition {
    Condition::all().add(Expr::col(Column::Queued).not()).add(Column::DeadAt.is_null())
}

/// Whether the time of any job has come that is not among those which may be claimed.
pub fn any_due(now: DateTime<Utc>) -> Select<Entity> {
    Entity::find().filter(is_waiting()).filter(Column::RunAt.lte(now)).order_by_asc(Column::RunAt).limit(1)
}

/// Puts jobs whose time has come among those that may be claimed, those of the earliest time first, and at most
/// [`QUEUED_AT_ONCE`]. They stay their workers' until somebody claims them.
pub(super) async fn queue_due(engine: &Engine) -> Result<()> {
    let now = engine.clock.now();
    // A look that is no write: mostly there is none.
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

/// Dead jobs of these kinds, the oldest first, those after `after`.
pub(crate) async fn dead(engine: &Engine, kinds: &[Kind], after: Option<JobId>, limit: u64) -> Result<Vec<Job>> {
    let mut query = Entity::find()
        .filter(Column::DeadAt.is_not_null())
        .filter(Column::Kind.is_in(kinds.iter().map(|kind| kind.name())));
    if let Some(after) = after {
        query = query.filter(Column::Id.gt(after));
    }
    query.order_by_asc(Column::Id).limit(limit).all(engine.db.search_conn()).await.map_err(db_error)
}

/// Those of the dedupe keys that a job has which is not dead.
pub(crate) async fn alive(engine: &Engine, keys: &[String]) -> Result<HashSet<String>> {
    having(engine, keys, Column::DeadAt.is_null()).await
}

/// Those of the dedupe keys that a dead job has.
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

/// Deletes the dead jobs in whose place this one is.
pub(crate) async fn remove_dead(tx: &Tx, job: &NewJob) -> Result<()> {
    let delete = Entity::delete_many()
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

/// Claims up to `at_most` jobs that are due, tenant by tenant as [`divide`] says, and of one tenant first come first
/// served within a priority; none of `except`. A job whose lease has ended is due like any. Beside others a tenant has a
/// quarter of one process's places, over all processes: they work on one store and one database.
///
/// What it costs grows with the places and with the tenants that wait, of which one look reaches [`SHARES_MAX`], and
/// not with the jobs that wait.
///
/// # Errors
/// The database's; then nothing is claimed. A failure after jobs were claimed ends the claiming, and the next one meets it.
pub(super) async fn claim(
    engine: &Engine,
    kind: Kind,
    at_most: usize,
    except: &[JobId],
    turn: &mut Turn,
) -> Result<Vec<Lease>> {
    let token = Uuid::new_v4();
    let company = engine.db.company();
    let beside_others = (engine.settings.jobs.concurrency / 4).max(1);
    let most = |tenant| if company.is_beside(Some(tenant)) { beside_others } else { usize::MAX };
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
            // The jobs claimed before it would stand still until their leases end, with an attempt used up.
            Err(error) => {
                debug!(error = with_causes(&error), "fewer jobs are claimed than there are places");
                break;
            }
        };
        let is_all = shares.len() < SHARES_MAX;
        turn.0 = shares.last().filter(|_| !is_all).map(|last| last.tenant);
        let is_none = claimed.is_empty();
        jobs.extend(claimed);
        // Where there is one tenant it has been asked for as many as there are places.
        if from.is_none() && (is_none || is_all && shares.len() <= 1) {
            break;
        }
    }
    // RETURNING keeps no order.
    jobs.sort_by_key(|job| (job.priority, job.created_at, job.id));
    Ok(jobs.into_iter().map(|job| Lease { job, token }).collect())
}

/// In the words of the index that has the jobs which may be claimed. One that a server of before has claimed, which
/// does not know of that index, waits for the end of its lease.
const CLAIMABLE: &str = "kind = $1 AND queued AND dead_at IS NULL AND (lease_token IS NULL OR run_at <= $2)";

#[derive(Debug, FromQueryResult)]
struct ShareRow {
    tenant_id: TenantId,
    running: i64,
    since: Option<DateTime<Utc>>,
}

/// Those of the kinds of which there are jobs that may be claimed.
pub(super) async fn waiting(engine: &Engine, kinds: &[Kind]) -> Result<Vec<Kind>> {
    let conn = engine.db.conn();
    let query = find_waiting(conn.get_database_backend(), kinds, engine.clock.now());
    let rows = conn.query_all_raw(query).await.map_err(db_error)?;
    let names: Vec<String> =
        rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>().map_err(db_error)?;
    Ok(names.iter().filter_map(|name| Kind::named(name)).collect())
}

/// One look at an index for each kind.
pub fn find_waiting(backend: DbBackend, kinds: &[Kind], now: DateTime<Utc>) -> Statement {
    let mut bound: Vec<Value> = vec![now.into()];
    let kinds = values(kinds.iter().map(|kind| [kind.name().into()]), &mut bound);
    // With an order, so that PostgreSQL goes by the index that has it, however likely it thinks that any row will do.
    let sql = format!(
        "SELECT DISTINCT kinds.column1 FROM ({kinds}) AS kinds
        WHERE (SELECT tenant_id FROM job WHERE kind = kinds.column1 AND queued AND dead_at IS NULL
            AND (lease_token IS NULL OR run_at <= $1) ORDER BY tenant_id LIMIT 1) IS NOT NULL"
    );
    Statement::from_sql_and_values(backend, sql, bound)
}

/// Runs [`find_shares`].
async fn shares(engine: &Engine, kind: Kind, except: &[JobId], from: Option<TenantId>) -> Result<Vec<Share>> {
    let conn = engine.db.conn();
    let query = find_shares(conn.get_database_backend(), kind, engine.clock.now(), except, from);
    let rows = ShareRow::find_by_statement(query).all(conn).await.map_err(db_error)?;
    // Between two looks inside of one statement nothing changes: each of them has a job.
    let share = |row: ShareRow| Some(Share { tenant: row.tenant_id, running: row.running, since: row.since? });
    Ok(rows.into_iter().filter_map(share).collect())
}

/// The tenants that have jobs of this kind which may be claimed, from `from` on in the order of their ids, at most
/// 200: one look at an index for each.
pub fn find_shares(
    backend: DbBackend,
    kind: Kind,
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

/// Claims so many of each tenant's.
async fn claim_of(
    engine: &Engine,
    kind: Kind,
    of: &[(TenantId, u64)],
    except: &[JobId],
    token: Uuid,
) -> Result<Vec<Job>> {
    let now = engine.clock.now();
    // In a WITH, because PostgreSQL may run a sub-select of an IN more than once, and would lock more rows each time.
    // SQLite has no such locks and needs none: the whole statement has its turn.
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

/// The first of a tenant's jobs that may be claimed, locked, and without those that others have locked.
pub fn claimable(kind: Kind, tenant: TenantId, now: DateTime<Utc>, except: &[JobId], limit: u64) -> SelectStatement {
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

/// This lease's job, as long as nobody else has claimed it.
fn of_lease(lease: &Lease) -> Condition {
    Condition::all().add(Column::Id.eq(lease.job.id)).add(Column::LeaseToken.eq(lease.token))
}

/// Moves the end of the lease on; `false` where it is lost.
pub(super) async fn extend(engine: &Engine, lease: &Lease) -> Result<bool> {
    let end = engine.clock.now() + lease_length(engine);
    let update = update(engine).col_expr(Column::RunAt, Expr::value(end)).col_expr(Column::Queued, Expr::value(false));
    change(engine, update.filter(of_lease(lease))).await
}

/// Deletes the job; `false` where the lease is lost.
pub(super) async fn delete(conn: &impl ConnectionTrait, lease: &Lease) -> Result<bool> {
    let deleted = Entity::delete_many().filter(of_lease(lease)).exec(conn).await.map_err(db_error)?;
    Ok(deleted.rows_affected > 0)
}

/// Deletes jobs; answers those whose leases were not lost.
pub(super) async fn delete_all(engine: &Engine, leases: &[Lease]) -> Result<HashSet<JobId>> {
    let mut bound = Vec::new();
    let named = values(leases.iter().map(|lease| [lease.job.id.into()]), &mut bound);
    let held = values(leases.iter().map(|lease| [lease.job.id.into(), lease.token.into()]), &mut bound);
    // By the key, whatever is thought of the number of rows; then by whose they are.
    let sql = format!("DELETE FROM job WHERE id IN ({named}) AND (id, lease_token) IN ({held}) RETURNING id");
    let conn = engine.db.write_conn();
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), sql, bound);
    let deleted = conn.query_all_raw(statement).await.map_err(db_error)?;
    deleted.iter().map(|row| row.try_get_by_index(0).map_err(db_error)).collect()
}

/// The job failed and is due again at `run_at`.
pub(super) async fn postpone(engine: &Engine, lease: &Lease, error: &str, run_at: DateTime<Utc>) -> Result<bool> {
    let update = update(engine)
        .col_expr(Column::RunAt, Expr::value(run_at))
        .col_expr(Column::Queued, Expr::value(false))
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
    Due(Box<Job>),
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

/// Deletes a job that nobody is working on; `None` where somebody is, or it is gone.
pub(super) async fn discard(engine: &Engine, tx: &Tx, id: JobId) -> Result<Option<Job>> {
    let delete = Entity::delete_many().filter(Column::Id.eq(id)).filter(nobody_is_at_it(engine.clock.now()));
    let deleted = delete.exec_with_returning(tx.conn()).await.map_err(db_error)?;
    Ok(deleted.into_iter().next())
}

fn nobody_is_at_it(now: DateTime<Utc>) -> Condition {
    Condition::any().add(in_state(State::Waiting, now)).add(in_state(State::Dead, now))
}
