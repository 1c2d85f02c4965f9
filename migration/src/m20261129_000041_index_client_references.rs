use sea_orm_migration::prelude::*;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// For lists of the sessions that one reference of a caller's names, in any batch: the columns of the other lists' indexes.
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(
            manager,
            "CREATE INDEX upload_session_by_client_reference
             ON upload_session (tenant_id, client_reference, status, id) WHERE client_reference IS NOT NULL",
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP INDEX upload_session_by_client_reference").await
    }
}
