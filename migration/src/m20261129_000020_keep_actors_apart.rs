use sea_orm_migration::prelude::*;

use crate::sql::{execute, is_postgres};

const TABLES: [&str; 3] = ["upload_event", "operator_action", "pass_run"];
const KNOWN: &str = "CHECK (actor_kind IN ('user', 'operator', 'command', 'system'))";

/// What sort of actor a record names: what a token calls its bearer and what the machine calls itself are both text.
/// Rows of before, and those of servers of the version before, have none.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            if is_postgres(manager) {
                execute(manager, &format!("ALTER TABLE {table} ADD COLUMN actor_kind text")).await?;
                // All rows that are there have none, and need not be read to know it.
                let sql = format!("ALTER TABLE {table} ADD CONSTRAINT actor_kind_known {KNOWN} NOT VALID");
                execute(manager, &sql).await?;
            } else {
                execute(manager, &format!("ALTER TABLE {table} ADD COLUMN actor_kind text {KNOWN}")).await?;
            }
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            execute(manager, &format!("ALTER TABLE {table} DROP COLUMN actor_kind")).await?;
        }
        Ok(())
    }
}
