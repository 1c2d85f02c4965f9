use sea_orm_migration::prelude::*;

use crate::sql::{Index, drop_index};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// By age, because the oldest tombstones are pruned first.
const BY_TIME: Index = Index {
    name: "upload_tombstone_by_time",
    table: "upload_tombstone",
    columns: "(deleted_at, tenant_id, upload_session_id)",
};

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        BY_TIME.create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_index(manager, BY_TIME.name).await
    }
}
