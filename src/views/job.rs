use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Time;
use crate::jobs::{Job, State};

/// A job that is not done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobView {
    job_id: Uuid,
    kind: String,
    /// `waiting`, `running` or `dead`.
    state: &'static str,
    #[schema(value_type = Object)]
    payload: Value,
    /// Among one tenant's jobs, the lower number comes first.
    priority: i32,
    /// Unique among the jobs that are not dead.
    dedupe_key: Option<String>,
    /// How often the job was started.
    attempts: i32,
    /// After this many attempts the job is dead.
    max_attempts: i32,
    /// When the job may start; while it runs, the end of its worker's lease.
    run_at: Time,
    last_error: Option<String>,
    dead_at: Option<Time>,
    created_at: Time,
}

impl JobView {
    pub(crate) fn new(job: Job, now: DateTime<Utc>) -> Self {
        Self {
            state: State::of(&job, now).name(),
            job_id: job.id.0,
            kind: job.kind,
            payload: job.payload,
            priority: job.priority,
            dedupe_key: job.dedupe_key,
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            run_at: Time(job.run_at),
            last_error: job.last_error,
            dead_at: job.dead_at.map(Time),
            created_at: Time(job.created_at),
        }
    }
}
