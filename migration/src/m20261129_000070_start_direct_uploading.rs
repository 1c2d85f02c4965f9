use sea_orm_migration::prelude::*;

use crate::sql::{Refusal, execute, is_postgres};

#[derive(DeriveMigrationName)]
pub struct Migration;

const NAME: &str = "upload_session_starts";
const BEFORE: &str = "INSERT ON upload_session";

/// A direct session may be inserted as UPLOADING, with both its events in the same transaction.
const NOW: Refusal = Refusal {
    name: NAME,
    before: BEFORE,
    condition: "NOT (NEW.status = 'INITIATING' AND NEW.version = 1
        OR NEW.status = 'UPLOADING' AND NEW.version = 2 AND NEW.upload_type = 'direct')",
    message: "an upload session starts INITIATING, as version 1, or UPLOADING and direct, as version 2",
};
const BEFORE_THIS: Refusal = Refusal {
    name: NAME,
    before: BEFORE,
    condition: "NEW.status <> 'INITIATING' OR NEW.version <> 1",
    message: "an upload session starts INITIATING, as version 1",
};

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        replace(manager, &NOW).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        replace(manager, &BEFORE_THIS).await
    }
}

async fn replace(manager: &SchemaManager<'_>, by: &Refusal) -> Result<(), DbErr> {
    let of = if is_postgres(manager) { " ON upload_session" } else { "" };
    execute(manager, &format!("DROP TRIGGER {NAME}{of}")).await?;
    by.create(manager).await
}
