use sea_orm::entity::prelude::*;

use crate::TenantId;

/// One share of a tenant's usage. The usage is the sum of the tenant's rows.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant_usage")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub stripe: i32,
    pub live_sessions: i64,
    pub bytes: i64,
    /// Whether the tenant is suspended or has a quota, so that each new session must be checked first.
    pub limited: bool,
}

impl ActiveModelBehavior for ActiveModel {}
