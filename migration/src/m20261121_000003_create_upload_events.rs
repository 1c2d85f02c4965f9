use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, json, json_typeof, bigint, bytes, strict, .. } = Words::of(manager);
        let table = format!(
            "CREATE TABLE upload_event (
                tenant_id {id} NOT NULL,
                upload_session_id {id} NOT NULL,
                seq integer NOT NULL,
                at {time} NOT NULL,
                event text NOT NULL,
                from_status text,
                to_status text,
                actor text NOT NULL,
                reason text,
                details {json} NOT NULL,
                mac {bytes} NOT NULL,
                position {bigint},

                PRIMARY KEY (tenant_id, upload_session_id, seq),
                CONSTRAINT upload_event_session
                    FOREIGN KEY (tenant_id, upload_session_id) REFERENCES upload_session (tenant_id, id),

                CONSTRAINT seq_positive
                    CHECK (seq >= 1),
                CONSTRAINT from_status_known
                    CHECK (from_status IN ('INITIATING', 'UPLOADING', 'COMPLETED', 'FAILED', 'CANCELLED')),
                CONSTRAINT to_status_known
                    CHECK (to_status IN ('INITIATING', 'UPLOADING', 'COMPLETED', 'FAILED', 'CANCELLED')),
                CONSTRAINT reason_known
                    CHECK (reason IN ('abandoned', 'expired', 'storage_error', 'verification_failed', 'operator')),
                CONSTRAINT details_is_object
                    CHECK ({json_typeof}(details) = 'object')
            ) {strict}"
        );
        execute(manager, &table).await?;
        execute(
            manager,
            "CREATE UNIQUE INDEX upload_event_position ON upload_event (position) WHERE position IS NOT NULL",
        )
        .await?;
        // For readers of one tenant's events that reconnect after a while.
        execute(
            manager,
            "CREATE INDEX upload_event_of_tenant ON upload_event (tenant_id, position) WHERE position IS NOT NULL",
        )
        .await?;
        execute(manager, "CREATE INDEX upload_event_unplaced ON upload_event (seq, at) WHERE position IS NULL").await?;

        // The last place that was given to an event in the order of all events. One row; the transaction that updates it has
        // the turn to give places.
        let feed = format!(
            "CREATE TABLE feed (
                id integer NOT NULL PRIMARY KEY,
                last_position {bigint} NOT NULL,
                CONSTRAINT feed_is_one CHECK (id = 1)
            ) {strict}"
        );
        execute(manager, &feed).await?;
        execute(manager, "INSERT INTO feed (id, last_position) VALUES (1, 0)").await?;

        // What is left of a session whose rows were deleted.
        let tombstone = format!(
            "CREATE TABLE upload_tombstone (
                tenant_id {id} NOT NULL,
                upload_session_id {id} NOT NULL,
                status text NOT NULL,
                event_seq integer NOT NULL,
                chain_head {bytes} NOT NULL,
                positions {json} NOT NULL,
                deleted_at {time} NOT NULL,
                mac {bytes} NOT NULL,
                PRIMARY KEY (tenant_id, upload_session_id),
                CONSTRAINT upload_tombstone_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (id)
            ) {strict}"
        );
        execute(manager, &tombstone).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE upload_tombstone").await?;
        execute(manager, "DROP TABLE feed").await?;
        execute(manager, "DROP TABLE upload_event").await
    }
}
