use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, bigint, boolean, strict, .. } = Words::of(manager);
        let tenant = format!(
            "CREATE TABLE tenant (
                id {id} NOT NULL PRIMARY KEY,
                slug text NOT NULL,
                bucket text,
                suspended_at {time},
                quota_bytes {bigint},
                quota_live_sessions {bigint},
                created_at {time} NOT NULL,
                CONSTRAINT tenant_slug_unique UNIQUE (slug),
                CONSTRAINT quota_not_negative
                    CHECK (quota_bytes >= 0 AND quota_live_sessions >= 0)
            ) {strict}"
        );
        execute(manager, &tenant).await?;

        let brand = format!(
            "CREATE TABLE brand (
                tenant_id {id} NOT NULL,
                id {id} NOT NULL,
                slug text NOT NULL,
                created_at {time} NOT NULL,
                PRIMARY KEY (tenant_id, id),
                CONSTRAINT brand_slug_unique UNIQUE (tenant_id, slug),
                CONSTRAINT brand_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (id)
            ) {strict}"
        );
        execute(manager, &brand).await?;

        // What a tenant holds, as the sum of a few rows, so that concurrent transactions rarely update the same row. A
        // single row means nothing, and may be negative. A tenant that is suspended or has a quota has all possible rows,
        // each of them `limited`: a transaction that counts a session without reading the tenant is stopped by the row in
        // which it counts.
        let usage = format!(
            "CREATE TABLE tenant_usage (
                tenant_id {id} NOT NULL,
                stripe integer NOT NULL,
                live_sessions {bigint} NOT NULL,
                bytes {bigint} NOT NULL,
                limited {boolean} NOT NULL,
                PRIMARY KEY (tenant_id, stripe),
                CONSTRAINT stripe_not_negative CHECK (stripe >= 0),
                CONSTRAINT tenant_usage_tenant FOREIGN KEY (tenant_id) REFERENCES tenant (id)
            ) {strict}"
        );
        execute(manager, &usage).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE tenant_usage").await?;
        execute(manager, "DROP TABLE brand").await?;
        execute(manager, "DROP TABLE tenant").await
    }
}
