use sea_orm_migration::prelude::*;

use crate::sql::{execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// Leaves room in the pages for the next versions of the rows that change most: then no index is written, and the next
    /// access clears the old version away. Pages that are already full get room as their rows change.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        fill(manager, "SET (fillfactor = 80)").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        fill(manager, "RESET (fillfactor)").await
    }
}

async fn fill(manager: &SchemaManager<'_>, how: &str) -> Result<(), DbErr> {
    if !is_postgres(manager) {
        return Ok(());
    }
    execute(manager, &format!("ALTER TABLE tenant_usage {how}")).await
}
