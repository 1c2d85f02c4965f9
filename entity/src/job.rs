use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::{JobId, TenantId};

/// A background job. Its row is deleted when the work is done. A dead job stays until it is retried, replaced or deleted.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: JobId,
    pub kind: String,
    /// The tenant whose share of the worker slots the job takes. All zeros: the deployment's own share.
    pub tenant_id: TenantId,
    /// A JSON object.
    pub payload: Json,
    /// Lower runs first, among the jobs of one tenant.
    pub priority: i32,
    /// Shared by at most one job that is not dead.
    pub dedupe_key: Option<String>,
    /// How many times the job was claimed.
    pub attempts: i32,
    pub max_attempts: i32,
    /// When the job may be claimed: its scheduled time, the end of its backoff after a failure, or the end of its lease.
    pub run_at: DateTime<Utc>,
    /// Whether that time has come and the job waits for a worker.
    pub queued: bool,
    /// The lease holder's token. A worker with a different token has lost the lease.
    pub lease_token: Option<Uuid>,
    pub last_error: Option<String>,
    pub dead_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
