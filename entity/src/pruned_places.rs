use sea_orm::entity::prelude::*;

/// The places in one block of the global event order that belonged to deleted sessions whose tombstones are gone too.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pruned_places")]
pub struct Model {
    /// Block `n` covers the 8,192 places from `n * 8192` on.
    #[sea_orm(primary_key, auto_increment = false)]
    pub block: i64,
    /// 1,024 bytes: one bit for each place, beginning with the lowest bit of the first byte.
    pub places: Vec<u8>,
    /// 32 bytes derived with the server's key from the rest of this row.
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
