use sea_orm::entity::prelude::*;

/// Which places of a block of the order of all events were those of deleted sessions whose tombstones are gone too.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pruned_places")]
pub struct Model {
    /// The block `n` has the places from `n * 8192` on.
    #[sea_orm(primary_key, auto_increment = false)]
    pub block: i64,
    /// 1,024 bytes: one bit for each place, the lowest of the first byte first.
    pub places: Vec<u8>,
    /// 32 bytes that only the server's key makes of the rest of this row.
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
