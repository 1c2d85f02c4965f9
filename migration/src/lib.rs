//! The schema, change by change. One file makes one change, and a server of the version before must be able to go on
//! working after it, because replicas are replaced one by one.
//!
//! Nothing here imports the entities: a migration says what the tables were on the day it was written.

mod m20261121_000001_create_tenants;
mod m20261121_000002_create_upload_sessions;
mod m20261121_000003_create_upload_events;
mod m20261121_000004_create_assets;
mod m20261121_000005_index_session_lists;
mod m20261122_000001_index_session_ends;
mod m20261122_000002_create_jobs;
mod m20261122_000003_create_schedules;
mod m20261122_000004_create_operator_actions;
mod m20261122_000005_index_uploaded_assets;
mod m20261122_000006_index_findings;
mod m20261122_000007_index_buckets;
mod m20261129_000020_keep_actors_apart;
mod m20261129_000030_share_queue;
mod m20261129_000031_index_queue;
mod m20261129_000032_prune_tombstones;
mod m20261129_000033_index_tombstones;
mod m20261129_000034_fill_usage;
mod m20261129_000040_take_empty_files;
mod m20261129_000041_index_client_references;
mod m20261129_000060_try_writes;
mod m20261129_000070_start_direct_uploading;
mod sql;

use std::time::{Duration, Instant};

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DbBackend, RuntimeErr, SqliteTransactionMode, SqlxPostgresConnector, Statement,
    TransactionOptions, TransactionTrait,
};
use tokio::time::timeout;
use tracing::info;

/// The advisory lock that migrators of one PostgreSQL database take turns on: "quaymast" in ASCII.
const LOCK: i64 = i64::from_be_bytes(*b"quaymast");

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261121_000001_create_tenants::Migration),
            Box::new(m20261121_000002_create_upload_sessions::Migration),
            Box::new(m20261121_000003_create_upload_events::Migration),
            Box::new(m20261121_000004_create_assets::Migration),
            Box::new(m20261121_000005_index_session_lists::Migration),
            Box::new(m20261122_000001_index_session_ends::Migration),
            Box::new(m20261122_000002_create_jobs::Migration),
            Box::new(m20261122_000003_create_schedules::Migration),
            Box::new(m20261122_000004_create_operator_actions::Migration),
            Box::new(m20261122_000005_index_uploaded_assets::Migration),
            Box::new(m20261122_000006_index_findings::Migration),
            Box::new(m20261122_000007_index_buckets::Migration),
            Box::new(m20261129_000020_keep_actors_apart::Migration),
            Box::new(m20261129_000030_share_queue::Migration),
            Box::new(m20261129_000031_index_queue::Migration),
            Box::new(m20261129_000032_prune_tombstones::Migration),
            Box::new(m20261129_000033_index_tombstones::Migration),
            Box::new(m20261129_000034_fill_usage::Migration),
            Box::new(m20261129_000040_take_empty_files::Migration),
            Box::new(m20261129_000041_index_client_references::Migration),
            Box::new(m20261129_000060_try_writes::Migration),
            Box::new(m20261129_000070_start_direct_uploading::Migration),
        ]
    }
}

/// How often a migration is tried that cannot have its lock, with a second between: longer than any statement of a
/// server takes, many times over.
const TRIES_FOR_A_LOCK: u32 = 120;

/// How long the small statements around the migrations may take, the look at what is pending among them: longer than a
/// server that is well ever takes. A database that says nothing must not hold up a start for ever. The migrations
/// themselves take as long as they take.
const ANSWER: Duration = Duration::from_secs(30);

/// Between two lines in the log of one who waits.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How a database stands to the migrations of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// None was ever applied.
    None,
    /// Some are pending.
    Old,
    Current,
}

/// Looks, and changes nothing.
///
/// # Errors
/// [`DbErr`]; also where the database has a migration that this program does not know.
pub async fn schema(db: &DatabaseConnection) -> Result<Schema, DbErr> {
    match pending(db).await? {
        0 => Ok(Schema::Current),
        pending if pending == Migrator::migrations().len() => Ok(Schema::None),
        _ => Ok(Schema::Old),
    }
}

/// Applies what is pending, one change after the other: each is there as a whole or not at all, and on SQLite all of
/// them are.
///
/// Any number of servers may start at once: one applies, the others wait for it and find nothing left to do. With
/// nothing pending this is two small reads and takes no lock. Servers of the version before go on meanwhile: no change
/// keeps their statements waiting for longer than a second (`lock_timeout`), and indexes are built beside them. One
/// that was interrupted is built anew.
///
/// # Errors
/// [`DbErr`]; what was applied before stays, and the next call goes on. Also where the database has a migration that
/// this program does not know, which means that a newer one has been here; on SQLite where another process holds the
/// write lock for longer than the connection's busy time-out; on PostgreSQL where a table was locked by others for two
/// minutes, and where it does not answer to one of the small statements around the changes within half a minute.
pub async fn run(db: &DatabaseConnection) -> Result<(), DbErr> {
    run_first(db, None).await
}

/// Applies at most so many of the pending changes: what an earlier version of this program knew.
///
/// # Errors
/// As [`run`].
#[doc(hidden)]
pub async fn run_first(db: &DatabaseConnection, most: Option<u32>) -> Result<(), DbErr> {
    if pending(db).await? == 0 {
        return Ok(());
    }
    migrate(db, Change::Up(most)).await
}

async fn pending(db: &DatabaseConnection) -> Result<usize, DbErr> {
    answered(Migrator::get_pending_migrations_read_only(db)).await.map(|pending| pending.len())
}

async fn answered<T>(asked: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    let silence = |_| Err(DbErr::Custom("the database did not answer in time".to_owned()));
    timeout(ANSWER, asked).await.unwrap_or_else(silence)
}

/// Takes every change back, down to an empty database. The data is gone.
///
/// # Errors
/// As [`run`].
pub async fn rollback(db: &DatabaseConnection) -> Result<(), DbErr> {
    migrate(db, Change::Down).await
}

#[derive(Clone, Copy)]
enum Change {
    Up(Option<u32>),
    Down,
}

async fn migrate(db: &DatabaseConnection, change: Change) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        return on_postgres(db, change).await;
    }
    // SQLite has one writer at a time: the write lock is the migrators' lock.
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    let tx = db.begin_with_options(options).await?;
    let outcome = match change {
        Change::Up(most) => Migrator::up(&tx, most).await,
        Change::Down => Migrator::reset(&tx).await,
    };
    match outcome {
        Ok(()) => tx.commit().await,
        Err(error) => {
            tx.rollback().await?;
            Err(error)
        }
    }
}

/// On a connection of its own, beside the pool's: it holds the migrators' lock from one transaction to the next, and
/// where there is none, as an index that is built beside the servers wants it.
async fn on_postgres(db: &DatabaseConnection, change: Change) -> Result<(), DbErr> {
    let pool = db.get_postgres_connection_pool();
    let one = pool.options().clone().max_connections(1).idle_timeout(None).max_lifetime(None);
    let one = one.connect_lazy_with(pool.connect_options().as_ref().clone());
    let own = SqlxPostgresConnector::from_sqlx_postgres_pool(one);
    let outcome = with_lock(&own, change).await;
    // The lock ends with the connection.
    let closed = answered(own.close()).await;
    outcome.and(closed)
}

async fn with_lock(own: &DatabaseConnection, change: Change) -> Result<(), DbErr> {
    // The server's limits for a statement and a transaction are meant for requests. To wait for another migrator, or to
    // build an index, takes longer.
    for limit in ["statement_timeout = 0", "idle_in_transaction_session_timeout = 0", sql::LOCK_TIMEOUT] {
        say(own, &format!("SET {limit}")).await?;
    }
    // Asked for again and again: whoever waits inside a statement holds a snapshot, for the end of which the building
    // of an index would wait.
    let mut waiting = Waiting::default();
    while !try_lock(own).await? {
        waiting.log("another process migrates the database's schema: waiting for its end");
        say(own, "SELECT pg_sleep(0.1)").await?;
    }
    let mut waiting = Waiting::default();
    for _ in 1..TRIES_FOR_A_LOCK {
        match apply(own, change).await {
            Err(error) if is_lock_timeout(&error) => {
                waiting.log("a table that the migration changes is locked by others: trying again");
                say(own, "SELECT pg_sleep(1)").await?;
            }
            outcome => return outcome,
        }
    }
    apply(own, change).await
}

/// What is waited for, said at the beginning and once a minute.
#[derive(Default)]
struct Waiting(Option<Instant>);

impl Waiting {
    fn log(&mut self, what: &str) {
        if self.0.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.0 = Some(Instant::now());
            info!("{what}");
        }
    }
}

async fn say(own: &DatabaseConnection, sql: &str) -> Result<(), DbErr> {
    answered(own.execute_unprepared(sql)).await.map(drop)
}

async fn apply(own: &DatabaseConnection, change: Change) -> Result<(), DbErr> {
    match change {
        Change::Up(most) => Migrator::up(own, most).await,
        Change::Down => Migrator::reset(own).await,
    }
}

async fn try_lock(own: &DatabaseConnection) -> Result<bool, DbErr> {
    let sql = format!("SELECT pg_try_advisory_lock({LOCK})");
    let row = answered(own.query_one_raw(Statement::from_string(DbBackend::Postgres, sql))).await?;
    row.map_or(Ok(false), |row| row.try_get_by_index(0))
}

/// PostgreSQL, appendix A: `lock_not_available`.
fn is_lock_timeout(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause))) = error else {
        return false;
    };
    cause.as_database_error().is_some_and(|refused| refused.code().as_deref() == Some("55P03"))
}
