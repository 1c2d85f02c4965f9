use sea_orm_migration::prelude::*;

use crate::sql::{Words, execute};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// When a server last tried to write. The value changes each time, because SQLite does not write a page that stays the
    /// same.
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Words { time, .. } = Words::of(manager);
        execute(manager, &format!("ALTER TABLE deployment ADD COLUMN written_at {time}")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, "ALTER TABLE deployment DROP COLUMN written_at").await
    }
}
