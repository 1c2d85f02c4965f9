//! Where the SQL of the two databases differs.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

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
