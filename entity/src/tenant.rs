use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::TenantId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TenantId,
    /// The name that people type on the command line; unique in the deployment.
    #[sea_orm(unique)]
    pub slug: String,
    /// The tenant's own bucket under the `dedicated` strategy.
    pub bucket: Option<String>,
    /// Since when the tenant cannot open new sessions.
    pub suspended_at: Option<DateTime<Utc>>,
    /// The maximum bytes that the tenant may hold: in live sessions, in assets, and in ended sessions not cleared yet.
    pub quota_bytes: Option<i64>,
    /// The maximum number of sessions that may be INITIATING or UPLOADING.
    pub quota_live_sessions: Option<i64>,
    pub created_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
