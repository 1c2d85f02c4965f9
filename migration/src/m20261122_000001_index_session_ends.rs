use sea_orm_migration::prelude::*;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The queues of the scheduled passes. Each index holds only the sessions that a pass may have to do with, so its cost
/// does not grow with those that are over and done with.
const INDEXES: [(&str, &str); 7] = [
    ("upload_session_idle", "(last_activity_at, tenant_id, id) WHERE status = 'UPLOADING'"),
    ("upload_session_expiring", "(expires_at, tenant_id, id) WHERE status = 'UPLOADING'"),
    ("upload_session_initiating", "(created_at, tenant_id, id) WHERE status = 'INITIATING'"),
    (
        "upload_session_completing",
        "(completing_at, tenant_id, id) WHERE status = 'UPLOADING' AND completing_at IS NOT NULL",
    ),
    (
        "upload_session_uncleared",
        "(updated_at, tenant_id, id) WHERE storage_cleared_at IS NULL AND status IN ('FAILED', 'CANCELLED')",
    ),
    // Apart from those: a COMPLETED session waits here until its asset is served from elsewhere, if it ever is.
    ("upload_session_unmoved", "(tenant_id, id) WHERE storage_cleared_at IS NULL AND status = 'COMPLETED'"),
    (
        "upload_session_past",
        "(storage_cleared_at, tenant_id, id)
         WHERE storage_cleared_at IS NOT NULL AND status IN ('FAILED', 'CANCELLED')",
    ),
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
