use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::upload_session::{FailureReason, Status};
use crate::{SessionId, TenantId};

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
    /// `initiate`, `open`, `complete`, `cancel`, `fail`.
    pub event: String,
    pub from_status: Option<Status>,
    pub to_status: Option<Status>,
    /// The token's `sub`, or `system`.
    pub actor: String,
    pub reason: Option<FailureReason>,
    /// A JSON object.
    pub details: Json,
}

impl ActiveModelBehavior for ActiveModel {}
