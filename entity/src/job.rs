use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::{JobId, TenantId};

/// Work for the background. A row is there until the work is done, or for good once it is dead.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: JobId,
    pub kind: String,
    /// Whose share of the workers' places it takes; all zeros: the deployment's own.
    pub tenant_id: TenantId,
    /// A JSON object.
    pub payload: Json,
    /// Of one tenant's jobs, lower comes first.
    pub priority: i32,
    /// At most one job that is not dead has it.
    pub dedupe_key: Option<String>,
    /// How often it was claimed.
    pub attempts: i32,
    pub max_attempts: i32,
    /// When it may be claimed: its time, the end of its pause after a failure, or the end of its lease.
    pub run_at: DateTime<Utc>,
    /// That time has come, and it waits for a worker.
    pub queued: bool,
    /// Of the worker that has it. Whoever writes with another one has lost it.
    pub lease_token: Option<Uuid>,
    pub last_error: Option<String>,
    pub dead_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
