use sea_orm_migration::prelude::*;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The assets that wait for promotion: a few, however many assets there are.
        let index = "CREATE INDEX asset_uploaded ON asset (tenant_id, upload_session_id) WHERE status = 'UPLOADED'";
        execute(manager, index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP INDEX asset_uploaded").await
    }
}
