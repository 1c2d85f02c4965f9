use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { id, time, strict, .. } = Words::of(manager);
        let tenant = format!(
            "CREATE TABLE tenant (
                id {id} NOT NULL PRIMARY KEY,
                slug text NOT NULL,
                bucket text,
                created_at {time} NOT NULL,
                CONSTRAINT tenant_slug_unique UNIQUE (slug)
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
        execute(manager, &brand).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "DROP TABLE brand").await?;
        execute(manager, "DROP TABLE tenant").await
    }
}
