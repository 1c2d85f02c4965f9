use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, json, json_typeof, strict, .. } = Words::of(manager);
        // A job that is done has no row. A job that is running is hidden until `run_at`, when its lease expires. So a
        // waiting job, a job that pauses after a failure and a job whose worker died are all claimed in the same way.
        let table = format!(
            "CREATE TABLE job (
                id {id} NOT NULL PRIMARY KEY,
                kind text NOT NULL,
                payload {json} NOT NULL,
                priority integer NOT NULL,
                dedupe_key text,
                attempts integer NOT NULL,
                max_attempts integer NOT NULL,
                run_at {time} NOT NULL,
                lease_token {id},
                last_error text,
                dead_at {time},
                created_at {time} NOT NULL,
                updated_at {time} NOT NULL,

                CONSTRAINT attempts_counted CHECK (attempts >= 0 AND max_attempts >= 1),
                CONSTRAINT dead_has_no_lease CHECK (dead_at IS NULL OR lease_token IS NULL),
                CONSTRAINT dead_has_error CHECK (dead_at IS NULL OR last_error IS NOT NULL),
                CONSTRAINT payload_is_object CHECK ({json_typeof}(payload) = 'object')
            ) {strict}"
        );
        execute(manager, &table).await?;
        execute(manager, "CREATE INDEX job_queue ON job (kind, priority, run_at, id) WHERE dead_at IS NULL").await?;
        execute(
            manager,
            "CREATE UNIQUE INDEX job_dedupe_key_unique ON job (dedupe_key)
             WHERE dedupe_key IS NOT NULL AND dead_at IS NULL",
        )
        .await?;
        execute(manager, "CREATE INDEX job_dead ON job (id) WHERE dead_at IS NOT NULL").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE job").await
    }
}
