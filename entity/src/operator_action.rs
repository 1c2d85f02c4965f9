use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::{ActorKind, TenantId};

/// Something that an operator did to a tenant, a job or a pass; written in the transaction that did it.
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
    /// Which of these it is; `None` in rows of before there were kinds.
    pub actor_kind: Option<ActorKind>,
    pub action: String,
    /// `None` where it concerns no single tenant.
    pub tenant_id: Option<TenantId>,
    /// A JSON object.
    pub details: Json,
    /// 32 bytes that only the server's key makes of this row and all before it.
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
