use sea_orm::entity::prelude::*;

/// Where the chain of the operators' actions ends. One row; whoever locks it has the turn.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operator_chain")]
pub struct Model {
    /// 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// The number of the last action; 0 where there is none.
    pub last_seq: i64,
    /// Empty where there is no action; else 32 bytes.
    pub head: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
