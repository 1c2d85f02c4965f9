use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ActorKindView, Time};
use crate::pass::RunRecord;
use crate::schedule::Status;

/// One run of a pass.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PassRun)]
pub(crate) struct RunView {
    run_id: Uuid,
    pass: String,
    /// The slot of the schedule; null for a run that somebody asked for.
    slot: Option<Time>,
    /// A token's `sub`, `system` for the schedule, `cli` for a command.
    actor: String,
    /// Null in runs from before this was recorded.
    actor_kind: Option<ActorKindView>,
    /// The run only looked, and changed nothing.
    dry_run: bool,
    /// The threshold that was asked for instead of the pass's own.
    older_than_secs: Option<i64>,
    started_at: Time,
    /// Null while it runs.
    ended_at: Option<Time>,
    found: i64,
    done: i64,
    failed: i64,
    skipped: i64,
    /// Why the run ended early.
    error: Option<String>,
    #[schema(value_type = Object)]
    details: Value,
}

impl From<RunRecord> for RunView {
    fn from(run: RunRecord) -> Self {
        Self {
            run_id: run.id.0,
            pass: run.pass,
            slot: run.slot.map(Time),
            actor: run.actor,
            actor_kind: run.actor_kind.map(Into::into),
            dry_run: run.dry_run,
            older_than_secs: run.older_than_secs,
            started_at: Time(run.started_at),
            ended_at: run.ended_at.map(Time),
            found: run.found,
            done: run.done,
            failed: run.failed,
            skipped: run.skipped,
            error: run.error,
            details: run.details,
        }
    }
}

/// The schedule and the last run of a pass.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PassStatus)]
pub(crate) struct PassView {
    pass: &'static str,
    /// In UTC; null if the pass runs only by hand.
    cron: Option<String>,
    next_slot: Option<Time>,
    /// The last slot that a server has taken.
    last_slot: Option<Time>,
    /// May be a run by hand, and may not have ended yet.
    last_run: Option<RunView>,
}

impl From<Status> for PassView {
    fn from(status: Status) -> Self {
        Self {
            pass: status.pass.name(),
            cron: status.cron,
            next_slot: status.next_slot.map(Time),
            last_slot: status.last_slot.map(Time),
            last_run: status.last_run.map(Into::into),
        }
    }
}
