use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Whose job it is, all zeros where it is nobody's; and whether its time has come, so that those that still wait
    /// are in nobody's way. Servers of before know neither: their jobs are nobody's and wait, until a server of today
    /// finds that their time has come.
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
