use sea_orm::entity::prelude::*;

use crate::TenantId;

/// A share of what a tenant holds; the sum of its rows is what counts.
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
    /// Whether the tenant is suspended or under a quota, so that a new session has to be weighed first.
    pub limited: bool,
}

impl ActiveModelBehavior for ActiveModel {}
