use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::upload_session::Status;
use crate::{SessionId, TenantId};

/// What is left of a session whose rows were deleted after the retention time.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "upload_tombstone")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub upload_session_id: SessionId,
    pub status: Status,
    /// The number of the session's events.
    pub event_seq: i32,
    /// The chain's last link, 32 bytes.
    pub chain_head: Vec<u8>,
    /// A JSON array: the places of the session's events in the global event order.
    pub positions: Json,
    pub deleted_at: DateTime<Utc>,
    /// 32 bytes derived with the server's key from the rest of this row.
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
