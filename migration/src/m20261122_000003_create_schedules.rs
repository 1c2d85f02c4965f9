use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, json, json_typeof, bigint, boolean, strict, .. } = Words::of(manager);
        // One row for each schedule: the last slot that a replica has taken.
        let schedule = format!(
            "CREATE TABLE schedule (
                name text NOT NULL PRIMARY KEY,
                last_slot {time} NOT NULL
            ) {strict}"
        );
        execute(manager, &schedule).await?;

        let run = format!(
            "CREATE TABLE pass_run (
                id {id} NOT NULL PRIMARY KEY,
                pass text NOT NULL,
                slot {time},
                actor text NOT NULL,
                dry_run {boolean} NOT NULL,
                older_than_secs {bigint},
                started_at {time} NOT NULL,
                ended_at {time},
                found {bigint} NOT NULL,
                done {bigint} NOT NULL,
                failed {bigint} NOT NULL,
                skipped {bigint} NOT NULL,
                error text,
                details {json} NOT NULL,
                CONSTRAINT details_is_object CHECK ({json_typeof}(details) = 'object')
            ) {strict}"
        );
        execute(manager, &run).await?;
        execute(manager, "CREATE INDEX pass_run_by_pass ON pass_run (pass, id)").await?;

        // The deployment that this database belongs to; the buckets that it uses are marked with the same id.
        let deployment = format!(
            "CREATE TABLE deployment (
                id integer NOT NULL PRIMARY KEY,
                deployment_id {id} NOT NULL,
                created_at {time} NOT NULL,
                CONSTRAINT deployment_is_one CHECK (id = 1)
            ) {strict}"
        );
        execute(manager, &deployment).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE deployment").await?;
        execute(manager, "DROP TABLE pass_run").await?;
        execute(manager, "DROP TABLE schedule").await
    }
}
