use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

/// Which deployment the database belongs to. One row.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment")]
pub struct Model {
    /// 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub deployment_id: Uuid,
    pub created_at: DateTime<Utc>,
    /// When a server last tried whether it can write.
    pub written_at: Option<DateTime<Utc>>,
}

impl ActiveModelBehavior for ActiveModel {}
