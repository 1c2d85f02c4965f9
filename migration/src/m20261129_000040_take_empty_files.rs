use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::Statement;

use crate::sql::{execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// A CHECK by its name and its condition.
type Check = (&'static str, &'static str);

const POSITIVE: Check = ("file_size_positive", "file_size >= 1");
const NOT_NEGATIVE: Check = ("file_size_not_negative", "file_size >= 0");

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        replace(manager, POSITIVE, NOT_NEGATIVE).await
    }

    /// Existing rows of empty files stay.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        replace(manager, NOT_NEGATIVE, POSITIVE).await
    }
}

async fn replace(manager: &SchemaManager<'_>, old: Check, new: Check) -> Result<(), DbErr> {
    if is_postgres(manager) {
        for table in ["upload_session", "asset"] {
            // NOT VALID reads no rows: existing ones were checked by the old condition.
            let sql = format!(
                "ALTER TABLE {table} DROP CONSTRAINT {}, ADD CONSTRAINT {} CHECK ({}) NOT VALID",
                old.0, new.0, new.1
            );
            execute(manager, &sql).await?;
        }
        return Ok(());
    }
    // SQLite cannot alter a CHECK. For a change that does not affect stored rows, its manual says: edit the text of the
    // schema, and increment its version, so that every connection reads it again (lang_altertable.html, section 7).
    let conn = manager.get_connection();
    let statement = Statement::from_string(manager.get_database_backend(), "PRAGMA schema_version");
    let row = conn.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::Custom("SQLite does not tell its schema_version".to_owned()))?;
    let version: i64 = row.try_get_by_index(0)?;
    execute(manager, "PRAGMA writable_schema = ON").await?;
    let sql = format!(
        "UPDATE sqlite_schema SET sql = replace(replace(sql, '{}', '{}'), 'CHECK ({})', 'CHECK ({})')
         WHERE type = 'table' AND name IN ('upload_session', 'asset')",
        old.0, new.0, old.1, new.1
    );
    execute(manager, &sql).await?;
    execute(manager, &format!("PRAGMA schema_version = {}", version + 1)).await?;
    execute(manager, "PRAGMA writable_schema = OFF").await
}
