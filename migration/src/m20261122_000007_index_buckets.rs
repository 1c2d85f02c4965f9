use sea_orm_migration::prelude::*;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// The buckets of sessions that are not cleared: read at each start and by the search for orphans. Every bucket has a
    /// name; the condition that says so keeps other queries from using this index.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = "CREATE INDEX upload_session_bucket ON upload_session (bucket)
            WHERE storage_cleared_at IS NULL AND bucket > ''";
        execute(manager, index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP INDEX upload_session_bucket").await
    }
}
