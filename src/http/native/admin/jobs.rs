use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use entity::{JobId, JobKind};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;
use validator::Validate;

use super::named;
use crate::caller::Admin;
use crate::engine::Engine;
use crate::http::body::{Body, Nothing};
use crate::http::path::id_of;
use crate::http::problem::Answer;
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::jobs::{self, State};
use crate::views::JobView;

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobsQuery {
    state: Option<String>,
    kind: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
    cursor: Option<JobId>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobPage)]
pub(crate) struct JobsView {
    /// Newest first.
    data: Vec<JobView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists the jobs that wait, run or are dead, newest first. A job that is done is not listed.
#[utoipa::path(
    get, path = "/admin/jobs", tag = "admin",
    params(
        ("state" = Option<String>, Query, format = "job-state"),
        ("kind" = Option<String>, Query, format = "job-kind"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page", body = JobsView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn jobs(engine: Data<Engine>, admin: Admin, query: Query<JobsQuery>) -> Answer {
    admin.operator()?;
    let JobsQuery { state, kind, limit, cursor } = query.parse()?;
    let filter = jobs::Filter {
        kind: named(kind.as_deref(), "?kind", JobKind::named, JobKind::ALL.map(JobKind::name))?,
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
pub(crate) async fn retry(engine: Data<Engine>, admin: Admin, id: Path<String>, body: Body<Nothing>) -> Answer {
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
pub(crate) async fn discard(engine: Data<Engine>, admin: Admin, id: Path<String>) -> Answer {
    let actor = admin.operator()?;
    let id: JobId = id_of(&id)?;
    jobs::discard(&engine, actor, id).await?;
    info!(actor = actor.name(), job.id = %id, "a job was deleted");
    Ok(HttpResponse::NoContent().finish())
}
