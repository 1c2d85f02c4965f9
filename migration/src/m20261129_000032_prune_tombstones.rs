use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// The places that events of deleted sessions had in the order of all events, once the tombstones are deleted too: one
    /// bit for each place, and a block of consecutive places in each row.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { bigint, bytes, strict, .. } = Words::of(manager);
        let table = format!(
            "CREATE TABLE pruned_places (
                block {bigint} NOT NULL PRIMARY KEY,
                places {bytes} NOT NULL,
                mac {bytes} NOT NULL,
                CONSTRAINT block_not_negative CHECK (block >= 0)
            ) {strict}"
        );
        execute(manager, &table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE pruned_places").await
    }
}
