use sea_orm_migration::prelude::*;

use crate::sql::{execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// The rows that are changed most have room for their next version beside them: then no index is written, and the
    /// old version is cleared away by whoever comes next. Pages that are full already get room as their rows are
    /// changed.
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
