use sea_orm::entity::prelude::*;

/// The end of the chain of operator actions. The table has one row, whose lock serializes new actions.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operator_chain")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// The number of the last action; 0 if there is none.
    pub last_seq: i64,
    /// 32 bytes; empty if there is no action.
    pub head: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
