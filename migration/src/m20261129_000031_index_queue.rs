use sea_orm_migration::prelude::*;

use crate::sql::{Index, drop_index};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The previous index of the queue, which mixed waiting jobs with due ones.
const MIXED: Index =
    Index { name: "job_queue", table: "job", columns: "(kind, priority, run_at, id) WHERE dead_at IS NULL" };

const INDEXES: [Index; 4] = [
    // The due jobs of each kind, tenant by tenant.
    Index {
        name: "job_queued",
        table: "job",
        columns: "(kind, tenant_id, priority, run_at, id) WHERE queued AND dead_at IS NULL",
    },
    // The waiting jobs, by the time at which a pause or a lease ends.
    Index { name: "job_waiting", table: "job", columns: "(run_at) WHERE NOT queued AND dead_at IS NULL" },
    // For the number of places that each tenant holds.
    Index { name: "job_running", table: "job", columns: "(kind, tenant_id) WHERE lease_token IS NOT NULL" },
    Index { name: "job_dead_key", table: "job", columns: "(dedupe_key) WHERE dead_at IS NOT NULL" },
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for index in INDEXES {
            index.create(manager).await?;
        }
        drop_index(manager, MIXED.name).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        MIXED.create(manager).await?;
        for index in INDEXES {
            drop_index(manager, index.name).await?;
        }
        Ok(())
    }
}
