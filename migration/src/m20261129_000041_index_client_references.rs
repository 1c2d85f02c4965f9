use sea_orm_migration::prelude::*;

use crate::sql::{Index, drop_index};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// For lists of sessions by client reference, in any batch. Has the same columns as the indexes of the other lists.
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
