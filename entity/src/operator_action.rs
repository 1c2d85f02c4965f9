use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::{ActorKind, TenantId};

/// An operator's action on a tenant, a job or a pass, written in the transaction of the action. Also the removal of orphans
/// that belong to no session, written before it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "operator_action")]
pub struct Model {
    /// Gap-free from 1 over the whole deployment.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    pub at: DateTime<Utc>,
    /// The token's `sub`, `system`, or `cli` for a command.
    pub actor: String,
    /// The kind of that actor; `None` in rows written before kinds were introduced.
    pub actor_kind: Option<ActorKind>,
    pub action: String,
    /// `None` if the action concerns no single tenant.
    pub tenant_id: Option<TenantId>,
    /// A JSON object.
    pub details: Json,
    /// 32 bytes derived with the server's key from this row and all rows before it.
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
