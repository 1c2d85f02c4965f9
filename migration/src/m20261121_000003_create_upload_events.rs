use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, json, json_typeof, strict, .. } = Words::of(manager);
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
        execute(manager, &table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE upload_event").await
    }
}
