use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

/// The deployment that the database belongs to. The table has one row.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub deployment_id: Uuid,
    pub created_at: DateTime<Utc>,
    /// When a server last tested that it can write to the database.
    pub written_at: Option<DateTime<Utc>>,
}

impl ActiveModelBehavior for ActiveModel {}
