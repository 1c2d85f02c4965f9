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
mod m20261129_000060_try_writes;
mod sql;

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

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
            Box::new(m20261129_000060_try_writes::Migration),
        ]
    }
}

/// Applies what is pending, all of it or nothing.
///
/// Any number of servers may start at once: one applies, the others wait for it and find nothing left to do. With
/// nothing pending this is two small reads and takes no lock.
///
/// # Errors
/// [`DbErr`], and the database is as it was. Also where the database has a migration that this program does not know,
/// which means that a newer one has been here; and on SQLite where another process holds the write lock for longer
/// than the connection's busy time-out.
pub async fn run(db: &DatabaseConnection) -> Result<(), DbErr> {
    if Migrator::get_pending_migrations_read_only(db).await?.is_empty() {
        return Ok(());
    }
    let tx = lock(db).await?;
    let applied = Migrator::up(&tx, None).await;
    settle(tx, applied).await
}

/// Takes every change back, down to an empty database. The data is gone.
///
/// # Errors
/// As [`run`].
pub async fn rollback(db: &DatabaseConnection) -> Result<(), DbErr> {
    let tx = lock(db).await?;
    let undone = Migrator::reset(&tx).await;
    settle(tx, undone).await
}

/// Begins the one transaction in which a migrator works, once no other one is at work.
///
/// Both databases can take back changes of the schema, so the transaction is all that "all or nothing" needs.
async fn lock(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    // SQLite has one writer at a time: the write lock is the migrators' lock.
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    let tx = db.begin_with_options(options).await?;
    if tx.get_database_backend() == DbBackend::Postgres {
        // The server's limit for a statement is meant for requests. Waiting for another migrator may take longer.
        tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    }
    Ok(tx)
}

async fn settle(tx: DatabaseTransaction, outcome: Result<(), DbErr>) -> Result<(), DbErr> {
    match outcome {
        Ok(()) => tx.commit().await,
        Err(error) => {
            tx.rollback().await?;
            Err(error)
        }
    }
}
