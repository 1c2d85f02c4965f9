use sea_orm::entity::prelude::*;

/// The last place assigned in the global event order. The table has one row, whose lock serializes the assignments.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "feed")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub last_position: i64,
}

impl ActiveModelBehavior for ActiveModel {}
