use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// What waits for an operator or for the next cleanup: a few, however many sessions and assets there are. Each once for
/// the newest ones of a tenant, and once for those of all.
const INDEXES: [(&str, &str); 4] = [
    (
        "upload_session_not_cleared",
        "upload_session (tenant_id, id) WHERE clear_failed_at IS NOT NULL AND storage_cleared_at IS NULL",
    ),
    (
        "upload_session_not_cleared_of_all",
        "upload_session (id) WHERE clear_failed_at IS NOT NULL AND storage_cleared_at IS NULL",
    ),
    ("asset_failed", "asset (tenant_id, upload_session_id) WHERE status = 'FAILED'"),
    ("asset_failed_of_all", "asset (upload_session_id) WHERE status = 'FAILED'"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { time, .. } = Words::of(manager);
        // Sessions that could not be cleared before this get their mark from the next cleanup that fails at them.
        let column = format!(
            "ALTER TABLE upload_session ADD COLUMN clear_failed_at {time}
             CONSTRAINT only_the_ended_fail_to_clear
                 CHECK (clear_failed_at IS NULL OR status IN ('COMPLETED', 'FAILED', 'CANCELLED'))"
        );
        execute(manager, &column).await?;
        for (name, rows) in INDEXES {
            execute(manager, &format!("CREATE INDEX {name} ON {rows}")).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDEXES {
            execute(manager, &format!("DROP INDEX {name}")).await?;
        }
        execute(manager, "ALTER TABLE upload_session DROP COLUMN clear_failed_at").await
    }
}
