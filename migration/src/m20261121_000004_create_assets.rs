use sea_orm_migration::prelude::*;

use crate::sql::{Refusal, Words, execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// Whether the row NEW has the right session, brand and reserved id. None of these change once a session is COMPLETED, so
/// what holds at INSERT holds forever.
const SESSION_MADE_IT: &str = "EXISTS (
    SELECT 1 FROM upload_session AS s
    WHERE s.tenant_id = NEW.tenant_id AND s.id = NEW.upload_session_id
      AND s.asset_id = NEW.id AND s.brand_id = NEW.brand_id AND s.status = 'COMPLETED')";

const NOT_ITS_SESSION: &str = "an asset takes the id that its COMPLETED session has reserved, in the same brand";

const ORIGIN_STAYS: Refusal = Refusal {
    name: "asset_origin_stays",
    before: "UPDATE OF tenant_id, id, upload_session_id ON asset",
    condition: "NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id OR NEW.upload_session_id <> OLD.upload_session_id",
    message: "where an asset came from stays",
};

const ARROWS: Refusal = Refusal {
    name: "asset_arrows",
    before: "UPDATE OF status ON asset",
    condition: "NEW.status <> OLD.status AND NOT (OLD.status = 'UPLOADED' AND NEW.status IN ('READY', 'FAILED'))",
    message: "an asset does not change its status this way",
};

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, json, json_typeof, bigint, boolean, strict, .. } = Words::of(manager);
        let table = format!(
            "CREATE TABLE asset (
                tenant_id {id} NOT NULL,
                id {id} NOT NULL,
                upload_session_id {id} NOT NULL,
                brand_id {id} NOT NULL,
                created_by text NOT NULL,
                status text NOT NULL,
                title text NOT NULL,
                file_name text NOT NULL,
                file_size {bigint} NOT NULL,
                mime_type text NOT NULL,
                bucket text NOT NULL,
                object_key text NOT NULL,
                etag text NOT NULL,
                checksum_sha256 text,
                checksum_verified {boolean} NOT NULL,
                metadata {json} NOT NULL,
                created_at {time} NOT NULL,
                ready_at {time},
                failure text,

                PRIMARY KEY (tenant_id, id),
                CONSTRAINT asset_upload_session_id_unique UNIQUE (tenant_id, upload_session_id),
                CONSTRAINT asset_session
                    FOREIGN KEY (tenant_id, upload_session_id) REFERENCES upload_session (tenant_id, id),
                CONSTRAINT asset_brand
                    FOREIGN KEY (tenant_id, brand_id) REFERENCES brand (tenant_id, id),

                CONSTRAINT status_known
                    CHECK (status IN ('UPLOADED', 'READY', 'FAILED')),
                CONSTRAINT ready_has_time
                    CHECK ((status = 'READY') = (ready_at IS NOT NULL)),
                CONSTRAINT failed_has_cause
                    CHECK ((status = 'FAILED') = (failure IS NOT NULL)),
                CONSTRAINT file_size_positive
                    CHECK (file_size >= 1),
                CONSTRAINT metadata_is_object
                    CHECK ({json_typeof}(metadata) = 'object')
            ) {strict}"
        );
        execute(manager, &table).await?;

        let trigger = if is_postgres(manager) {
            format!(
                "CREATE FUNCTION refuse_asset_of_no_session() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF NOT {SESSION_MADE_IT} THEN
                         RAISE EXCEPTION '{NOT_ITS_SESSION}'
                         USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
                     END IF;
                     RETURN NEW;
                 END $$;
                 CREATE TRIGGER asset_has_session BEFORE INSERT ON asset
                 FOR EACH ROW EXECUTE FUNCTION refuse_asset_of_no_session()"
            )
        } else {
            format!(
                "CREATE TRIGGER asset_has_session BEFORE INSERT ON asset
                 FOR EACH ROW WHEN NOT {SESSION_MADE_IT}
                 BEGIN SELECT RAISE(ABORT, '{NOT_ITS_SESSION}'); END"
            )
        };
        execute(manager, &trigger).await?;
        ORIGIN_STAYS.create(manager).await?;
        ARROWS.create(manager).await?;
        // For what a tenant completed in a span of days.
        execute(manager, "CREATE INDEX asset_by_time ON asset (tenant_id, created_at)").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE asset").await?;
        if is_postgres(manager) {
            execute(manager, "DROP FUNCTION refuse_asset_of_no_session").await?;
        }
        Ok(())
    }
}
