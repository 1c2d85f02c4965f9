use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::TenantId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TenantId,
    /// What people type on the command line; unique in the deployment.
    #[sea_orm(unique)]
    pub slug: String,
    /// The tenant's own bucket under the `dedicated` strategy.
    pub bucket: Option<String>,
    pub created_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
