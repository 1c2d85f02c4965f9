use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::named;
use crate::caller::Admin;
use crate::engine::Engine;
use crate::error::Error;
use crate::http::body::Body;
use crate::http::problem::{self, Answer, Problem};
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::pass::{self, Options, Pass};
use crate::schedule;
use crate::views::{PassView, RunView};

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Passes)]
pub(crate) struct PassesView {
    data: Vec<PassView>,
}

/// Lists every pass with its next slot and its last run.
#[utoipa::path(
    get, path = "/admin/passes", tag = "admin",
    responses((status = 200, description = "All passes", body = PassesView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn passes(engine: Data<Engine>, admin: Admin) -> Answer {
    admin.operator()?;
    let passes = schedule::status(&engine).await?;
    Ok(HttpResponse::Ok().json(PassesView { data: passes.into_iter().map(Into::into).collect() }))
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRequest {
    /// Look, report, and change nothing.
    dry_run: Option<bool>,
    /// A threshold in seconds, instead of the pass's own; zero is allowed.
    #[schema(minimum = 0, maximum = 3_155_760_000_u64)]
    #[validate(range(min = 0, max = 3_155_760_000_i64))]
    older_than_secs: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PassRunOrdered)]
pub(crate) struct OrderedView {
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
pub(crate) async fn run(engine: Data<Engine>, admin: Admin, name: Path<String>, body: Body<RunRequest>) -> Answer {
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
pub(crate) struct RunsQuery {
    pass: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PassRuns)]
pub(crate) struct RunsView {
    /// Newest first.
    data: Vec<RunView>,
}

/// Lists the runs of one pass or of all, newest first. The last 1,000 runs of each pass are kept.
#[utoipa::path(
    get, path = "/admin/runs", tag = "admin",
    params(
        ("pass" = Option<String>, Query, format = "pass"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Newest first", body = RunsView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn runs(engine: Data<Engine>, admin: Admin, query: Query<RunsQuery>) -> Answer {
    admin.operator()?;
    let RunsQuery { pass, limit } = query.parse()?;
    let pass = named(pass.as_deref(), "?pass", Pass::named, Pass::ALL.map(Pass::name))?;
    let runs = pass::runs(&engine, pass, limit.unwrap_or(LIMIT_DEFAULT)).await?;
    Ok(HttpResponse::Ok().json(RunsView { data: runs.into_iter().map(Into::into).collect() }))
}
