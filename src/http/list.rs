//! `GET /app/uploads` and `GET /app/batches/{batch_reference}`.

use std::collections::BTreeMap;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use entity::{BrandId, SessionId};
use sea_orm::ActiveEnum as _;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::admit;
use super::problem::Answer;
use super::query::Query;
use super::views::{SessionView, Time, parse_status};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Result;
use crate::session;
use crate::session::rows::Filter;

const LIMIT_DEFAULT: u64 = 50;
const LIMIT_MAX: u64 = 200;

/// One page of sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadPage)]
pub(super) struct PageView {
    data: Vec<SessionView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// `GET /app/uploads`: the sessions that the caller sees, newest first.
#[utoipa::path(
    get, path = "/app/uploads", tag = "uploads",
    params(
        ("status" = Option<String>, Query, description = "States, separated by commas.", pattern = "^(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED)(,(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED))*$"),
        ("brand_id" = Option<Uuid>, Query),
        ("batch_reference" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("fingerprint" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("created_by" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "One page", body = PageView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(super) async fn list(engine: Data<Engine>, caller: Caller, request: HttpRequest) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let (filter, before, limit) = read(&request)?;
    let page = session::list(&engine, &caller, &filter, before, limit).await?;
    Ok(HttpResponse::Ok().json(PageView {
        data: page.sessions.into_iter().map(Into::into).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    }))
}

fn read(request: &HttpRequest) -> Result<(Filter, Option<SessionId>, u64)> {
    let mut query = Query::of(request);
    let filter = Filter {
        statuses: query.list("status", parse_status).unwrap_or_default(),
        brand: query.one::<Uuid>("brand_id").map(BrandId),
        batch_reference: query.text("batch_reference", 128),
        fingerprint: query.text("fingerprint", 128),
        created_by: query.text("created_by", 128),
    };
    let limit = query.range("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
    let before = query.one::<Uuid>("cursor").map(SessionId);
    query.finish()?;
    Ok((filter, before, limit))
}

/// How a batch stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchSummary)]
pub(super) struct BatchSummaryView {
    batch_reference: String,
    sessions: i64,
    /// Of all its files.
    bytes: i64,
    /// Sessions in each state that occurs.
    counts: BTreeMap<String, i64>,
    first_activity_at: Time,
    last_activity_at: Time,
}

/// `GET /app/batches/{batch_reference}`: how a batch stands, of the sessions that the caller sees.
#[utoipa::path(
    get, path = "/app/batches/{batch_reference}", tag = "uploads",
    params(("batch_reference" = String, Path)),
    responses((status = 200, description = "The batch", body = BatchSummaryView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(super) async fn batch(engine: Data<Engine>, caller: Caller, reference: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let batch = session::batch(&engine, &caller, &reference).await?;
    Ok(HttpResponse::Ok().json(BatchSummaryView {
        batch_reference: reference.into_inner(),
        sessions: batch.sessions,
        bytes: batch.bytes,
        counts: batch.counts.into_iter().map(|(status, count)| (status.to_value(), count)).collect(),
        first_activity_at: Time(batch.first_activity_at),
        last_activity_at: Time(batch.last_activity_at),
    }))
}
