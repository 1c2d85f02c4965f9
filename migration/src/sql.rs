//! Where the SQL of the two databases differs.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

/// Names for what one database writes otherwise than the other. The SQLite side is what sea-orm binds there: an id as
/// a blob of 16 bytes, a time as RFC 3339 text (which sorts as the times do), JSON as text, a bool as 0 or 1.
pub(crate) struct Words {
    pub id: &'static str,
    pub time: &'static str,
    /// Text as it came, unlike `jsonb`: members keep their order and numbers their digits.
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
    /// `INSERT ON table`, or `UPDATE OF columns ON table` with the columns of which one must be assigned to for the
    /// condition to hold. PostgreSQL parses the condition anew for each statement, and most assign to none of them.
    pub before: &'static str,
    /// No subquery: PostgreSQL allows none here. In return it costs no call of a function where nothing is refused.
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

/// How long a change waits for a lock, on PostgreSQL: as long as it waits, every statement that comes after it waits
/// too.
pub(crate) const LOCK_TIMEOUT: &str = "lock_timeout = '1s'";

/// An index on a table that may be large, and is written to meanwhile.
pub(crate) struct Index {
    pub name: &'static str,
    pub table: &'static str,
    /// In brackets, and the condition where it has one.
    pub columns: &'static str,
}

impl Index {
    /// Builds the index; on PostgreSQL beside the servers, for which the migration must not use a transaction. One that
    /// an interrupted try has left unfinished is dropped before, and one that is there stays.
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

/// Drops an index where it is there, as [`Index::create`] builds one.
pub(crate) async fn drop_index(manager: &SchemaManager<'_>, name: &str) -> Result<(), DbErr> {
    if is_postgres(manager) {
        beside(manager, &format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await
    } else {
        execute(manager, &format!("DROP INDEX IF EXISTS {name}")).await
    }
}

/// `None` where there is no such index.
async fn is_valid(manager: &SchemaManager<'_>, name: &str) -> Result<Option<bool>, DbErr> {
    let sql = format!("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')");
    let row = manager.get_connection().query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.map(|row| row.try_get_by_index(0)).transpose()
}

/// Nobody waits for such a statement, and it waits for all that were there before it: for as long as it takes.
async fn beside(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    execute(manager, "SET lock_timeout = 0").await?;
    execute(manager, sql).await?;
    execute(manager, &format!("SET {LOCK_TIMEOUT}")).await
}
