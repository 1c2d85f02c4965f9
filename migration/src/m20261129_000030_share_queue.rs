use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Adds the job's tenant, all zeros if it has none, and whether the job is due, so that jobs that still wait do not slow
    /// down the claiming of due ones. Older servers know neither column: their jobs have no tenant and wait until a newer
    /// server finds that they are due.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, boolean, .. } = Words::of(manager);
        let (nobody, no) = if is_postgres(manager) {
            ("'00000000-0000-0000-0000-000000000000'", "false")
        } else {
            ("x'00000000000000000000000000000000'", "0")
        };
        execute(manager, &format!("ALTER TABLE job ADD COLUMN tenant_id {id} NOT NULL DEFAULT {nobody}")).await?;
        execute(manager, &format!("ALTER TABLE job ADD COLUMN queued {boolean} NOT NULL DEFAULT {no}")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "ALTER TABLE job DROP COLUMN queued").await?;
        execute(manager, "ALTER TABLE job DROP COLUMN tenant_id").await
    }
}
