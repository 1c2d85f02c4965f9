use sea_orm_migration::prelude::*;

use crate::sql::{execute, is_postgres};

const TABLES: [&str; 3] = ["upload_event", "operator_action", "pass_run"];
const KNOWN: &str = "CHECK (actor_kind IN ('user', 'operator', 'command', 'system'))";

/// The kind of actor that a record names: the name of a user and the name of the server itself are both plain text. Rows
/// from before this change, and rows of servers of the previous version, have none.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            if is_postgres(manager) {
                execute(manager, &format!("ALTER TABLE {table} ADD COLUMN actor_kind text")).await?;
                // All existing rows have none, so they need not be checked.
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
