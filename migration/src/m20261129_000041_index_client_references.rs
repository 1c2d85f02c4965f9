use sea_orm_migration::prelude::*;

use crate::sql::{Index, drop_index};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// For lists of the sessions that one reference of a caller's names, in any batch: the columns of the other lists' indexes.
const BY_CLIENT_REFERENCE: Index = Index {
    name: "upload_session_by_client_reference",
    table: "upload_session",
    columns: "(tenant_id, client_reference, status, id) WHERE client_reference IS NOT NULL",
};

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        BY_CLIENT_REFERENCE.create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_index(manager, BY_CLIENT_REFERENCE.name).await
    }
}
