use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// What waits for an operator or for the next cleanup: a few, however many sessions and assets there are. One index for the
/// newest of a tenant, and one for the newest of all tenants.
const OF_ASSETS: [(&str, &str); 2] = [
    ("asset_failed", "asset (tenant_id, upload_session_id) WHERE status = 'FAILED'"),
    ("asset_failed_of_all", "asset (upload_session_id) WHERE status = 'FAILED'"),
];
const OF_SESSIONS: [(&str, &str); 1] = [(
    "upload_session_not_cleared_of_all",
    "upload_session (id) WHERE clear_failed_at IS NOT NULL AND storage_cleared_at IS NULL",
)];
/// PostgreSQL finds a tenant's sessions in the index over all tenants; SQLite would read all sessions of the tenant.
const ON_SQLITE: [(&str, &str); 1] = [(
    "upload_session_not_cleared",
    "upload_session (tenant_id, id) WHERE clear_failed_at IS NOT NULL AND storage_cleared_at IS NULL",
)];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { time, .. } = Words::of(manager);
        // First, because from the next statement until the end, no other transaction can read sessions.
        create(manager, &OF_ASSETS).await?;
        let check = "CONSTRAINT only_the_ended_fail_to_clear
            CHECK (clear_failed_at IS NULL OR status IN ('COMPLETED', 'FAILED', 'CANCELLED'))";
        // Sessions that could not be cleared before this change are marked by the next cleanup that fails to clear them.
        let column = format!("ALTER TABLE upload_session ADD COLUMN clear_failed_at {time}");
        if is_postgres(manager) {
            execute(manager, &column).await?;
            // All existing rows meet it, which need not be checked.
            execute(manager, &format!("ALTER TABLE upload_session ADD {check} NOT VALID")).await?;
        } else {
            execute(manager, &format!("{column} {check}")).await?;
        }
        if !is_postgres(manager) {
            // First: if two indexes fit, SQLite uses the newer one.
            create(manager, &ON_SQLITE).await?;
        }
        create(manager, &OF_SESSIONS).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let on_sqlite = ON_SQLITE.into_iter().filter(|_| !is_postgres(manager));
        for (name, _) in OF_SESSIONS.into_iter().chain(OF_ASSETS).chain(on_sqlite) {
            execute(manager, &format!("DROP INDEX {name}")).await?;
        }
        execute(manager, "ALTER TABLE upload_session DROP COLUMN clear_failed_at").await
    }
}

async fn create(manager: &SchemaManager<'_>, indexes: &[(&str, &str)]) -> Result<(), DbErr> {
    for (name, rows) in indexes {
        execute(manager, &format!("CREATE INDEX {name} ON {rows}")).await?;
    }
    Ok(())
}
