use sea_orm_migration::prelude::*;

use crate::sql::{Refusal, Words, execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The state machine's transitions, and the other changes that no statement may make to a session.
const REFUSALS: [Refusal; 5] = [
    Refusal {
        name: "upload_session_starts",
        before: "INSERT ON upload_session",
        condition: "NEW.status <> 'INITIATING' OR NEW.version <> 1",
        message: "an upload session starts INITIATING, as version 1",
    },
    Refusal {
        name: "upload_session_arrows",
        before: "UPDATE OF status ON upload_session",
        condition: "NEW.status <> OLD.status AND NOT (
            OLD.status = 'INITIATING' AND NEW.status IN ('UPLOADING', 'CANCELLED', 'FAILED')
            OR OLD.status = 'UPLOADING' AND NEW.status IN ('COMPLETED', 'CANCELLED', 'FAILED'))",
        message: "an upload session does not change its state this way",
    },
    Refusal {
        name: "upload_session_counts",
        before: "UPDATE OF status, version, event_seq ON upload_session",
        condition: "NEW.version <> OLD.version + CASE WHEN NEW.status = OLD.status THEN 0 ELSE 1 END
            OR NEW.event_seq < OLD.event_seq + CASE WHEN NEW.status = OLD.status THEN 0 ELSE 1 END",
        message: "version counts changes of state, and each has its event",
    },
    Refusal {
        name: "upload_session_outcomes",
        before: "UPDATE OF completed_at, failed_at, failure_reason, cancelled_at, multipart_upload_id ON upload_session",
        condition: "NEW.status = OLD.status AND (
                NEW.completed_at IS DISTINCT FROM OLD.completed_at
                OR NEW.failed_at IS DISTINCT FROM OLD.failed_at
                OR NEW.failure_reason IS DISTINCT FROM OLD.failure_reason
                OR NEW.cancelled_at IS DISTINCT FROM OLD.cancelled_at)
            OR NEW.multipart_upload_id IS DISTINCT FROM OLD.multipart_upload_id
                AND NOT (OLD.status = 'INITIATING' AND NEW.status = 'UPLOADING')",
        message: "what a change of state has recorded of an upload session stays",
    },
    Refusal {
        name: "upload_session_fixed",
        before: "UPDATE OF tenant_id, id, brand_id, created_by, upload_type, profile, url_ttl_secs, bucket, chunk_size,
            total_parts, file_name, file_size, mime_type, checksum_sha256, client_reference, batch_reference, fingerprint,
            idempotency_key, asset_id, created_at ON upload_session",
        condition: "NEW.tenant_id <> OLD.tenant_id
            OR NEW.id <> OLD.id
            OR NEW.brand_id <> OLD.brand_id
            OR NEW.created_by <> OLD.created_by
            OR NEW.upload_type <> OLD.upload_type
            OR NEW.profile <> OLD.profile
            OR NEW.url_ttl_secs <> OLD.url_ttl_secs
            OR NEW.bucket <> OLD.bucket
            OR NEW.chunk_size IS DISTINCT FROM OLD.chunk_size
            OR NEW.total_parts IS DISTINCT FROM OLD.total_parts
            OR NEW.file_name <> OLD.file_name
            OR NEW.file_size <> OLD.file_size
            OR NEW.mime_type <> OLD.mime_type
            OR NEW.checksum_sha256 IS DISTINCT FROM OLD.checksum_sha256
            OR NEW.client_reference IS DISTINCT FROM OLD.client_reference
            OR NEW.batch_reference IS DISTINCT FROM OLD.batch_reference
            OR NEW.fingerprint IS DISTINCT FROM OLD.fingerprint
            OR NEW.idempotency_key IS DISTINCT FROM OLD.idempotency_key
            OR NEW.asset_id <> OLD.asset_id
            OR NEW.created_at <> OLD.created_at",
        message: "what an upload session was opened with stays",
    },
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, json, json_typeof, bigint, bytes, strict, .. } = Words::of(manager);
        let table = format!(
            "CREATE TABLE upload_session (
                tenant_id {id} NOT NULL,
                id {id} NOT NULL,
                brand_id {id} NOT NULL,
                created_by text NOT NULL,

                status text NOT NULL,
                version integer NOT NULL,
                event_seq integer NOT NULL,
                chain_head {bytes} NOT NULL,
                failure_reason text,

                upload_type text NOT NULL,
                profile text NOT NULL,
                url_ttl_secs integer NOT NULL,
                bucket text NOT NULL,
                multipart_upload_id text,
                chunk_size {bigint},
                total_parts integer,

                file_name text NOT NULL,
                file_size {bigint} NOT NULL,
                mime_type text NOT NULL,
                checksum_sha256 text,
                metadata {json} NOT NULL,

                client_reference text,
                batch_reference text,
                fingerprint text,
                idempotency_key text,

                asset_id {id} NOT NULL,
                completing_at {time},
                completing_by text,
                completing_title text,
                completing_metadata {json},

                created_at {time} NOT NULL,
                updated_at {time} NOT NULL,
                last_activity_at {time} NOT NULL,
                expires_at {time} NOT NULL,
                completed_at {time},
                failed_at {time},
                cancelled_at {time},
                storage_cleared_at {time},

                PRIMARY KEY (tenant_id, id),
                CONSTRAINT upload_session_brand
                    FOREIGN KEY (tenant_id, brand_id) REFERENCES brand (tenant_id, id),

                CONSTRAINT status_known
                    CHECK (status IN ('INITIATING', 'UPLOADING', 'COMPLETED', 'FAILED', 'CANCELLED')),
                CONSTRAINT upload_type_known
                    CHECK (upload_type IN ('direct', 'multipart')),
                CONSTRAINT failure_reason_known
                    CHECK (failure_reason IN
                        ('abandoned', 'expired', 'storage_error', 'verification_failed', 'operator')),

                CONSTRAINT completed_has_time
                    CHECK ((status = 'COMPLETED') = (completed_at IS NOT NULL)),
                CONSTRAINT failed_has_time
                    CHECK ((status = 'FAILED') = (failed_at IS NOT NULL)),
                CONSTRAINT failed_has_reason
                    CHECK ((status = 'FAILED') = (failure_reason IS NOT NULL)),
                CONSTRAINT cancelled_has_time
                    CHECK ((status = 'CANCELLED') = (cancelled_at IS NOT NULL)),
                CONSTRAINT every_change_has_event
                    CHECK (version >= 1 AND event_seq >= version),

                CONSTRAINT upload_id_fits_status
                    CHECK (CASE
                        WHEN upload_type = 'direct' OR status = 'INITIATING' THEN multipart_upload_id IS NULL
                        WHEN status IN ('UPLOADING', 'COMPLETED') THEN multipart_upload_id IS NOT NULL
                        ELSE TRUE END),
                CONSTRAINT plan_fits_type
                    CHECK (CASE upload_type
                        WHEN 'direct' THEN chunk_size IS NULL AND total_parts IS NULL
                        ELSE chunk_size IS NOT NULL AND total_parts IS NOT NULL END),
                CONSTRAINT plan_fits_size
                    CHECK (chunk_size >= 1 AND total_parts >= 1
                        AND (total_parts - 1) * chunk_size < file_size AND file_size <= total_parts * chunk_size),
                CONSTRAINT file_size_positive
                    CHECK (file_size >= 1),
                CONSTRAINT url_ttl_positive
                    CHECK (url_ttl_secs >= 1),
                CONSTRAINT metadata_is_object
                    CHECK ({json_typeof}(metadata) = 'object'),

                CONSTRAINT completing_has_actor
                    CHECK ((completing_at IS NOT NULL) = (completing_by IS NOT NULL)),
                CONSTRAINT completing_is_whole
                    CHECK (completing_at IS NOT NULL OR (completing_title IS NULL AND completing_metadata IS NULL)),
                CONSTRAINT completing_needs_upload
                    CHECK (completing_at IS NULL OR status <> 'INITIATING'),
                CONSTRAINT completing_metadata_is_object
                    CHECK ({json_typeof}(completing_metadata) = 'object'),
                CONSTRAINT only_the_ended_are_cleared
                    CHECK (storage_cleared_at IS NULL OR status IN ('COMPLETED', 'FAILED', 'CANCELLED'))
            ) {strict}"
        );
        execute(manager, &table).await?;

        // Each user of a brand may use a key, and a pair of references, once. A violation names the index on PostgreSQL and
        // the columns on SQLite; both texts contain the name of the column that tells the two apart.
        execute(
            manager,
            "CREATE UNIQUE INDEX upload_session_idempotency_key_unique
             ON upload_session (tenant_id, brand_id, created_by, idempotency_key)
             WHERE idempotency_key IS NOT NULL",
        )
        .await?;
        execute(
            manager,
            "CREATE UNIQUE INDEX upload_session_client_reference_unique
             ON upload_session (tenant_id, brand_id, created_by, batch_reference, client_reference)
             WHERE batch_reference IS NOT NULL AND client_reference IS NOT NULL",
        )
        .await?;

        if is_postgres(manager) {
            execute(
                manager,
                "CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     RAISE EXCEPTION '%', TG_ARGV[0]
                     USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
                 END $$",
            )
            .await?;
        }
        for refusal in REFUSALS {
            refusal.create(manager).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE upload_session").await?;
        if is_postgres(manager) {
            execute(manager, "DROP FUNCTION refuse_row").await?;
        }
        Ok(())
    }
}
