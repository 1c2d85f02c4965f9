use sea_orm::entity::prelude::*;

/// The last place that was given to an event. One row; whoever updates it has the turn.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "feed")]
pub struct Model {
    /// 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub last_position: i64,
}

impl ActiveModelBehavior for ActiveModel {}
