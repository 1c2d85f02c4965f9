use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, json, json_typeof, bigint, bytes, strict, .. } = Words::of(manager);
        let action = format!(
            "CREATE TABLE operator_action (
                seq {bigint} NOT NULL PRIMARY KEY,
                at {time} NOT NULL,
                actor text NOT NULL,
                action text NOT NULL,
                tenant_id {id},
                details {json} NOT NULL,
                mac {bytes} NOT NULL,

                CONSTRAINT operator_action_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (id),
                CONSTRAINT seq_positive CHECK (seq >= 1),
                CONSTRAINT details_is_object CHECK ({json_typeof}(details) = 'object')
            ) {strict}"
        );
        execute(manager, &action).await?;
        execute(
            manager,
            "CREATE INDEX operator_action_of_tenant ON operator_action (tenant_id, seq) WHERE tenant_id IS NOT NULL",
        )
        .await?;

        // The last action's number and the head of the chain. One row; the transaction that locks it has the turn to record.
        let chain = format!(
            "CREATE TABLE operator_chain (
                id integer NOT NULL PRIMARY KEY,
                last_seq {bigint} NOT NULL,
                head {bytes} NOT NULL,
                CONSTRAINT operator_chain_is_one CHECK (id = 1)
            ) {strict}"
        );
        execute(manager, &chain).await?;
        let empty = if is_postgres(manager) { "''" } else { "x''" };
        execute(manager, &format!("INSERT INTO operator_chain (id, last_seq, head) VALUES (1, 0, {empty})")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE operator_chain").await?;
        execute(manager, "DROP TABLE operator_action").await
    }
}
