//! `/admin/passes`, `/admin/runs` and `/admin/jobs`: the work in the background.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use chrono::{DateTime, TimeDelta, Utc};
use entity::JobId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::named;
use crate::caller::Admin;
use crate::engine::Engine;
use crate::error::Error;
use crate::http::body::{Body, Nothing};
use crate::http::id_of;
use crate::http::problem::{self, Answer, Problem};
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::http::views::{ActorKindView, Time};
use crate::jobs::{self, Job, Kind, State};
use crate::pass::{self, Options, Pass, RunRecord};
use crate::schedule::{self, Status};

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

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Passes)]
pub(in crate::http) struct PassesView {
    data: Vec<PassView>,
}

/// Lists every pass with its next slot and its last run.
#[utoipa::path(
    get, path = "/admin/passes", tag = "admin",
    responses((status = 200, description = "All passes", body = PassesView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(in crate::http) async fn passes(engine: Data<Engine>, admin: Admin) -> Answer {
    admin.operator()?;
    let passes = schedule::status(&engine).await?;
    Ok(HttpResponse::Ok().json(PassesView { data: passes.into_iter().map(Into::into).collect() }))
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RunRequest {
    /// Look, report, and change nothing.
    dry_run: Option<bool>,
    /// A threshold in seconds, instead of the pass's own; zero is allowed.
    #[schema(minimum = 0, maximum = 3_155_760_000_u64)]
    #[validate(range(min = 0, max = 3_155_760_000_i64))]
    older_than_secs: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PassRunOrdered)]
pub(in crate::http) struct OrderedView {
    job_id: Uuid,
}

/// Queues a run of a pass for a worker.
#[utoipa::path(
    post, path = "/admin/passes/{name}/run", tag = "admin", request_body = RunRequest,
    params(("name" = String, Path)),
    responses(
        (status = 202, description = "Queued", body = OrderedView),
        (status = 409, description = "`pass-running`"),
    ),
    extensions(("x-permission" = json!("operator"))),
)]
pub(in crate::http) async fn run(
    engine: Data<Engine>,
    admin: Admin,
    name: Path<String>,
    body: Body<RunRequest>,
) -> Answer {
    let actor = admin.operator()?;
    let RunRequest { dry_run, older_than_secs } = body.parse()?;
    let pass = Pass::named(&name).ok_or(Error::NotFound)?;
    let options = Options { dry_run: dry_run.unwrap_or_default(), older_than: older_than_secs.map(TimeDelta::seconds) };
    let Some(job) = pass::enqueue(&engine, pass, options, actor).await? else {
        return Err(Problem::new(&problem::PASS_RUNNING, "the pass is running, or waits for a worker"));
    };
    info!(actor = actor.name(), pass.name = pass.name(), "a run of a pass was queued");
    Ok(HttpResponse::Accepted().json(OrderedView { job_id: job.0 }))
}

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RunsQuery {
    pass: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PassRuns)]
pub(in crate::http) struct RunsView {
    /// Newest first.
    data: Vec<RunView>,
}

/// Lists the runs of one pass or of all, newest first. The last 1,000 runs of each pass are kept.
#[utoipa::path(
    get, path = "/admin/runs", tag = "admin",
    params(
        ("pass" = Option<String>, Query, pattern = "^(detect-abandoned|cleanup|orphans|reconcile)$"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Newest first", body = RunsView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(in crate::http) async fn runs(engine: Data<Engine>, admin: Admin, query: Query<RunsQuery>) -> Answer {
    admin.operator()?;
    let RunsQuery { pass, limit } = query.parse()?;
    let pass = named(pass.as_deref(), "?pass", Pass::named, Pass::ALL.map(Pass::name))?;
    let runs = pass::runs(&engine, pass, limit.unwrap_or(LIMIT_DEFAULT)).await?;
    Ok(HttpResponse::Ok().json(RunsView { data: runs.into_iter().map(Into::into).collect() }))
}

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

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct JobsQuery {
    state: Option<String>,
    kind: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
    cursor: Option<JobId>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobPage)]
pub(in crate::http) struct JobsView {
    /// Newest first.
    data: Vec<JobView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists the jobs that wait, run or are dead, newest first. A job that is done is not listed.
#[utoipa::path(
    get, path = "/admin/jobs", tag = "admin",
    params(
        ("state" = Option<String>, Query, pattern = "^(waiting|running|dead)$"),
        ("kind" = Option<String>, Query, pattern = "^(promote|detect-abandoned|cleanup|orphans|reconcile)$"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page", body = JobsView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(in crate::http) async fn jobs(engine: Data<Engine>, admin: Admin, query: Query<JobsQuery>) -> Answer {
    admin.operator()?;
    let JobsQuery { state, kind, limit, cursor } = query.parse()?;
    let filter = jobs::Filter {
        kind: named(kind.as_deref(), "?kind", Kind::named, Kind::ALL.map(Kind::name))?,
        state: named(state.as_deref(), "?state", State::named, State::ALL.map(State::name))?,
    };
    let page = jobs::list(&engine, filter, cursor, limit.unwrap_or(LIMIT_DEFAULT)).await?;
    let now = engine.clock.now();
    Ok(HttpResponse::Ok().json(JobsView {
        data: page.items.into_iter().map(|job| JobView::new(job, now)).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    }))
}

/// Makes a dead or waiting job due now, as if it had never failed.
#[utoipa::path(
    post, path = "/admin/jobs/{id}/retry", tag = "admin", params(("id" = Uuid, Path)), request_body = Nothing,
    responses(
        (status = 200, description = "Due now", body = JobView),
        (status = 409, description = "`busy`: the job is running, or another job for the same work is queued"),
    ),
    extensions(("x-permission" = json!("operator"))),
)]
pub(in crate::http) async fn retry(
    engine: Data<Engine>,
    admin: Admin,
    id: Path<String>,
    body: Body<Nothing>,
) -> Answer {
    let actor = admin.operator()?;
    body.parse()?;
    let job = jobs::retry(&engine, actor, id_of(&id)?).await?;
    info!(actor = actor.name(), job.id = %job.id, job.kind, "a job was made due");
    Ok(HttpResponse::Ok().json(JobView::new(job, engine.clock.now())))
}

/// Deletes a dead or waiting job, so that it is never done.
#[utoipa::path(
    delete, path = "/admin/jobs/{id}", tag = "admin", params(("id" = Uuid, Path)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 409, description = "`busy`: the job is running"),
    ),
    extensions(("x-permission" = json!("operator"))),
)]
pub(in crate::http) async fn discard(engine: Data<Engine>, admin: Admin, id: Path<String>) -> Answer {
    let actor = admin.operator()?;
    let id: JobId = id_of(&id)?;
    jobs::discard(&engine, actor, id).await?;
    info!(actor = actor.name(), job.id = %id, "a job was deleted");
    Ok(HttpResponse::NoContent().finish())
}
