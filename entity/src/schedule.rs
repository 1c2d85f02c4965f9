use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

/// The last slot of a schedule that any replica has taken.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "schedule")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub last_slot: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
