//! Where the SQL of the two databases differs.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

/// Names that differ between the two databases. The SQLite names match what sea-orm binds there: an id as a blob of 16
/// bytes, a time as RFC 3339 text (which sorts in the order of time), JSON as text, a bool as 0 or 1.
pub(crate) struct Words {
    pub id: &'static str,
    pub time: &'static str,
    /// Stored as the original text, unlike `jsonb`: members keep their order and numbers their digits.
    pub json: &'static str,
    pub json_typeof: &'static str,
    pub bigint: &'static str,
    pub boolean: &'static str,
    pub bytes: &'static str,
    /// What follows the closing bracket of CREATE TABLE.
    pub strict: &'static str,
}

impl Words {
    pub(crate) fn of(manager: &SchemaManager<'_>) -> Self {
        if is_postgres(manager) {
            Self {
                id: "uuid",
                time: "timestamptz",
                json: "json",
                json_typeof: "json_typeof",
                bigint: "bigint",
                boolean: "boolean",
                bytes: "bytea",
                strict: "",
            }
        } else {
            Self {
                id: "blob",
                time: "text",
                json: "text",
                json_typeof: "json_type",
                bigint: "integer",
                boolean: "integer",
                bytes: "blob",
                strict: "STRICT",
            }
        }
    }
}

pub(crate) fn is_postgres(manager: &SchemaManager<'_>) -> bool {
    manager.get_database_backend() == DbBackend::Postgres
}

pub(crate) async fn execute(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    manager.get_connection().execute_unprepared(sql).await?;
    Ok(())
}

/// A trigger that stops the statement for every row that meets `condition`, in which NEW and OLD are the rows.
pub(crate) struct Refusal {
    pub name: &'static str,
    /// `INSERT ON table`, or `UPDATE OF columns ON table` with the columns of which one must be assigned for the condition
    /// to hold. PostgreSQL parses the condition again for each statement, and most statements assign none of them.
    pub before: &'static str,
    /// Must not contain a subquery, which PostgreSQL does not allow here. In return, no function is called if nothing is
    /// refused.
    pub condition: &'static str,
    pub message: &'static str,
}

impl Refusal {
    /// On PostgreSQL the function `refuse_row` must exist.
    pub(crate) async fn create(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let Self { name, before, condition, message } = self;
        let action = if is_postgres(manager) {
            format!("EXECUTE FUNCTION refuse_row('{message}')")
        } else {
            format!("BEGIN SELECT RAISE(ABORT, '{message}'); END")
        };
        let sql = format!("CREATE TRIGGER {name} BEFORE {before} FOR EACH ROW WHEN ({condition}) {action}");
        execute(manager, &sql).await
    }
}

/// How long a change waits for a lock on PostgreSQL. While it waits, every statement that comes after it waits too.
pub(crate) const LOCK_TIMEOUT: &str = "lock_timeout = '1s'";

/// An index on a table that may be large and is written to during the build.
pub(crate) struct Index {
    pub name: &'static str,
    pub table: &'static str,
    /// The columns in brackets, and the condition if there is one.
    pub columns: &'static str,
}

impl Index {
    /// Builds the index; on PostgreSQL concurrently, so the migration must not use a transaction. There, an unfinished index
    /// of an interrupted build is dropped first, and a valid index is kept.
    pub(crate) async fn create(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let Self { name, table, columns } = self;
        if !is_postgres(manager) {
            return execute(manager, &format!("CREATE INDEX {name} ON {table} {columns}")).await;
        }
        if let Some(is_valid) = is_valid(manager, name).await? {
            if is_valid {
                return Ok(());
            }
            drop_index(manager, name).await?;
        }
        beside(manager, &format!("CREATE INDEX CONCURRENTLY {name} ON {table} {columns}")).await
    }
}

/// Drops an index if it exists; on PostgreSQL concurrently, like [`Index::create`].
pub(crate) async fn drop_index(manager: &SchemaManager<'_>, name: &str) -> Result<(), DbErr> {
    if is_postgres(manager) {
        beside(manager, &format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await
    } else {
        execute(manager, &format!("DROP INDEX IF EXISTS {name}")).await
    }
}

/// Returns `None` if there is no such index.
async fn is_valid(manager: &SchemaManager<'_>, name: &str) -> Result<Option<bool>, DbErr> {
    let sql = format!("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')");
    let row = manager.get_connection().query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.map(|row| row.try_get_by_index(0)).transpose()
}

/// Runs a concurrent statement without a lock timeout. No other statement waits for it, and it waits for all earlier ones,
/// however long they take.
async fn beside(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    execute(manager, "SET lock_timeout = 0").await?;
    execute(manager, sql).await?;
    execute(manager, &format!("SET {LOCK_TIMEOUT}")).await
}
