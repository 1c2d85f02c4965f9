use sea_orm_migration::prelude::*;

use crate::sql::{execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The queues of the scheduled passes. Each index holds only the sessions that a pass may have to handle, so its cost does
/// not grow with the finished ones.
const INDEXES: [(&str, &str); 10] = [
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
    // Apart from those: a COMPLETED session stays here until its asset is served from elsewhere, which may never happen.
    ("upload_session_unmoved", "(tenant_id, id) WHERE storage_cleared_at IS NULL AND status = 'COMPLETED'"),
    (
        "upload_session_past",
        "(storage_cleared_at, tenant_id, id)
         WHERE storage_cleared_at IS NOT NULL AND status IN ('FAILED', 'CANCELLED')",
    ),
    // For what happened to a tenant's sessions in a span of days; completed sessions are counted by their assets.
    ("upload_session_by_time", "(tenant_id, created_at)"),
    ("upload_session_failed", "(tenant_id, failed_at) WHERE status = 'FAILED'"),
    ("upload_session_cancelled", "(tenant_id, cancelled_at) WHERE status = 'CANCELLED'"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns) in INDEXES {
            execute(manager, &format!("CREATE INDEX {name} ON upload_session {columns}")).await?;
        }
        // The only pass that starts from keys in a bucket knows ids but no tenants. By hash, because PostgreSQL would use an
        // ordered index over the ids of all tenants to find the newest sessions of one tenant.
        let by = if is_postgres(manager) { "USING hash (id)" } else { "(id)" };
        execute(manager, &format!("CREATE INDEX upload_session_by_id ON upload_session {by}")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP INDEX upload_session_by_id").await?;
        for (name, _) in INDEXES {
            execute(manager, &format!("DROP INDEX {name}")).await?;
        }
        Ok(())
    }
}
