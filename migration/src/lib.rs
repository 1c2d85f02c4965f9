//! The schema, change by change. Each file makes one change, and servers of the previous version must keep working after it,
//! because replicas are replaced one by one.
//!
//! Nothing here imports the entities: a migration describes the tables as they were when it was written.

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

/// The advisory lock that lets only one migrator at a time work on a PostgreSQL database: "quaymast" in ASCII.
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

/// How often a migration is tried if it cannot get its lock, one second apart. In total this is many times longer than any
/// statement of a server takes.
const TRIES_FOR_A_LOCK: u32 = 120;

/// How long each small statement around the migrations may take, including the query for pending ones. This is longer than a
/// healthy database ever takes, and keeps a silent database from blocking a start forever. The migrations themselves have no
/// time limit.
const ANSWER: Duration = Duration::from_secs(30);

/// Interval between two log lines while waiting.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The schema of a database, compared with the migrations of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// No migration was ever applied.
    None,
    /// Some migrations are pending.
    Old,
    Current,
}

/// Reads the state of the schema, and changes nothing.
///
/// # Errors
/// [`DbErr`], also if the database has a migration that this program does not know.
pub async fn schema(db: &DatabaseConnection) -> Result<Schema, DbErr> {
    match pending(db).await? {
        0 => Ok(Schema::Current),
        pending if pending == Migrator::migrations().len() => Ok(Schema::None),
        _ => Ok(Schema::Old),
    }
}

/// Applies the pending changes one after the other. Each is applied as a whole or not at all; on SQLite, all of them
/// together.
///
/// Any number of servers may start at once: one applies the changes, the others wait for it and find nothing left to do.
/// With nothing pending this takes two small reads and no lock. Servers of the previous version keep working meanwhile: no
/// change makes their statements wait longer than a second (`lock_timeout`), and indexes are built concurrently. An index
/// whose build was interrupted is built again.
///
/// # Errors
/// [`DbErr`]; changes that were committed stay, and the next call continues. Also if the database has a migration that this
/// program does not know, because a newer version has run; on SQLite if another process holds the write lock for longer than
/// the connection's busy timeout; on PostgreSQL if others lock a table for two minutes, or if the database does not answer
/// one of the small statements around the changes within 30 seconds.
pub async fn run(db: &DatabaseConnection) -> Result<(), DbErr> {
    run_first(db, None).await
}

/// Applies at most `most` of the pending changes, as an earlier version of this program would.
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

/// Reverts every change, down to an empty database. All data is lost.
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

/// Migrates on a connection of its own, outside of the pool. It holds the migrators' lock across transactions, and also
/// while no transaction is open, as a concurrent index build requires.
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
    // The server's limits for statements and transactions are meant for requests. Waiting for another migrator or building
    // an index takes longer.
    for limit in ["statement_timeout = 0", "idle_in_transaction_session_timeout = 0", sql::LOCK_TIMEOUT] {
        say(own, &format!("SET {limit}")).await?;
    }
    // Polled: a statement that waits for the lock would hold a snapshot, and a concurrent index build would wait for the end
    // of that snapshot.
    let mut waiting = Waiting::default();
    while !try_lock(own).await? {
        waiting.log("another process migrates the database's schema: waiting until it has finished");
        say(own, "SELECT pg_sleep(0.1)").await?;
    }
    let mut waiting = Waiting::default();
    for _ in 1..TRIES_FOR_A_LOCK {
        match apply(own, change).await {
            Err(error) if is_lock_timeout(&error) => {
                waiting.log("a table that the migration changes is locked by others: retrying");
                say(own, "SELECT pg_sleep(1)").await?;
            }
            outcome => return outcome,
        }
    }
    apply(own, change).await
}

/// Logs what is waited for, at the beginning and once a minute.
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
