use sea_orm_migration::prelude::*;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// In which buckets there is something to explain: asked at each start, and by the search for orphans. Every bucket has
    /// a name; that it is said here keeps other queries from this index.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = "CREATE INDEX upload_session_bucket ON upload_session (bucket)
            WHERE storage_cleared_at IS NULL AND bucket > ''";
        execute(manager, index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP INDEX upload_session_bucket").await
    }
}
