use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::upload_session::{FailureReason, Status};
use crate::{ActorKind, SessionId, TenantId};

/// One event in a session's history, written in the transaction of the change that it records. An effect on the store is
/// recorded after it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "upload_event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub upload_session_id: SessionId,
    /// Gap-free from 1 within the session.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i32,
    pub at: DateTime<Utc>,
    /// The event's name: `initiate`, a transition, a change of the asset (`asset.ready`), or an effect on the store.
    pub event: String,
    pub from_status: Option<Status>,
    pub to_status: Option<Status>,
    /// The token's `sub`, `system`, or `cli` for a command.
    pub actor: String,
    /// The kind of that actor; `None` in rows written before kinds were introduced.
    pub actor_kind: Option<ActorKind>,
    pub reason: Option<FailureReason>,
    /// A JSON object.
    pub details: Json,
    /// 32 bytes derived with the server's key from this row and all rows before it.
    pub mac: Vec<u8>,
    /// The event's place in the deployment's global event order, from 1 without gaps; assigned shortly after the commit.
    pub position: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
