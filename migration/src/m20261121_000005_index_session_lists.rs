use sea_orm_migration::prelude::*;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// Lists return pages, newest first, which is by descending id. Each index has the columns that a list may filter by, then
/// `status`, then `id`: a list over several states or brands reads each in order and merges them, and reads no row that it
/// does not return. A list without any filter uses the primary key.
const INDEXES: [(&str, &str); 7] = [
    ("upload_session_by_status", "(tenant_id, status, id)"),
    ("upload_session_by_brand", "(tenant_id, brand_id, status, id)"),
    ("upload_session_by_user", "(tenant_id, created_by, status, id)"),
    ("upload_session_by_user_and_brand", "(tenant_id, created_by, brand_id, status, id)"),
    ("upload_session_by_batch", "(tenant_id, batch_reference, status, id) WHERE batch_reference IS NOT NULL"),
    (
        "upload_session_by_batch_and_user",
        "(tenant_id, batch_reference, created_by, status, id) WHERE batch_reference IS NOT NULL",
    ),
    ("upload_session_by_fingerprint", "(tenant_id, fingerprint, status, id) WHERE fingerprint IS NOT NULL"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns) in INDEXES {
            execute(manager, &format!("CREATE INDEX {name} ON upload_session {columns}")).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDEXES {
            execute(manager, &format!("DROP INDEX {name}")).await?;
        }
        Ok(())
    }
}
