use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::upload_session::{FailureReason, Status};
use crate::{ActorKind, SessionId, TenantId};

/// One line of a session's history; written in the transaction that did what it records.
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
    /// What happened: `initiate`, the name of a transition, or that of an effect on the store.
    pub event: String,
    pub from_status: Option<Status>,
    pub to_status: Option<Status>,
    /// The token's `sub`, `system`, or `cli` for a command.
    pub actor: String,
    /// Which of these it is; `None` in rows of before there were kinds.
    pub actor_kind: Option<ActorKind>,
    pub reason: Option<FailureReason>,
    /// A JSON object.
    pub details: Json,
    /// 32 bytes that only the server's key makes of this row and all before it.
    pub mac: Vec<u8>,
    /// Its place in the order of all events of the deployment; given a moment after the commit, from 1, without gaps.
    pub position: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
