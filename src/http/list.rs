//! `GET /app/uploads` and `GET /app/batches/{batch_reference}`.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use entity::{BrandId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::door::Door;
use super::in_flight::Asker;
use super::problem::{Answer, Problem};
use super::query::{LIMIT_DEFAULT, Query};
use super::views::{SessionView, Time};
use super::{admit, rules};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::page::Page;
use crate::session::rows::Filter;
use crate::session::{self, Session, state};

/// The most bytes that one session of a page takes; its metadata takes up to 4 KiB of them.
const SESSION_BYTES: usize = 6 << 10;

/// One page of sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadPage)]
pub(crate) struct PageView {
    data: Vec<SessionView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

impl From<Page<Session, SessionId>> for PageView {
    fn from(page: Page<Session, SessionId>) -> Self {
        Self { data: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next.map(|id| id.to_string()) }
    }
}

/// Lists the sessions that the caller sees, newest first.
#[utoipa::path(
    get, path = "/app/uploads", tag = "uploads",
    params(
        ("status" = Option<String>, Query, description = "States, separated by commas.", pattern = "^(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED)(,(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED))*$"),
        ("brand_id" = Option<uuid::Uuid>, Query),
        ("batch_reference" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("client_reference" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("fingerprint" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("created_by" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page", body = PageView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(super) async fn list(engine: Data<Engine>, door: Data<Door>, caller: Caller, query: Query<ListQuery>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let asker = Asker::Tenant(caller.tenant);
    page(engine, &door, asker, caller, query.parse()?).await
}

/// Answers one page of the sessions that `caller` sees. The work counts for `asker`.
pub(super) async fn page(engine: Data<Engine>, door: &Door, asker: Asker, caller: Caller, query: ListQuery) -> Answer {
    let (before, limit) = (query.cursor, query.page_size());
    let bytes = SESSION_BYTES * usize::try_from(limit).unwrap_or(usize::MAX);
    let room = door.in_flight.reserve(asker, bytes).await?;
    let listing = async move {
        let page = session::list(&engine, &caller, &query.filter(), before, limit).await?;
        Ok::<_, Problem>(room.write(StatusCode::OK, &PageView::from(page)))
    };
    Ok(door.apart.verb(asker, listing).await??.into())
}

/// The query parameters of a list.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[validate(custom(function = "rules::states"))]
    pub(super) status: Option<String>,
    pub(super) brand_id: Option<BrandId>,
    #[validate(custom(function = "rules::reference"))]
    pub(super) batch_reference: Option<String>,
    #[validate(custom(function = "rules::reference"))]
    pub(super) client_reference: Option<String>,
    #[validate(custom(function = "rules::reference"))]
    pub(super) fingerprint: Option<String>,
    #[validate(custom(function = "rules::reference"))]
    pub(super) created_by: Option<String>,
    #[validate(range(min = 1, max = 200))]
    pub(super) limit: Option<u64>,
    pub(super) cursor: Option<SessionId>,
}

impl ListQuery {
    pub(super) fn page_size(&self) -> u64 {
        self.limit.unwrap_or(LIMIT_DEFAULT)
    }

    pub(super) fn filter(self) -> Filter {
        Filter {
            // All of them are valid: `rules::states` has been checked.
            statuses: self.status.iter().flat_map(|names| names.split(',')).filter_map(state::named).collect(),
            brand: self.brand_id,
            batch_reference: self.batch_reference,
            client_reference: self.client_reference,
            fingerprint: self.fingerprint,
            created_by: self.created_by,
        }
    }
}

/// The state of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchSummary)]
pub(super) struct BatchSummaryView {
    batch_reference: String,
    sessions: i64,
    /// Bytes of all its files.
    bytes: i64,
    /// The number of sessions in each state that occurs.
    counts: BTreeMap<String, i64>,
    first_activity_at: Time,
    last_activity_at: Time,
}

/// Summarizes a batch. Only the sessions that the caller sees count.
#[utoipa::path(
    get, path = "/app/batches/{batch_reference}", tag = "uploads",
    params(("batch_reference" = String, Path)),
    responses((status = 200, description = "The batch", body = BatchSummaryView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(super) async fn batch(engine: Data<Engine>, door: Data<Door>, caller: Caller, reference: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    if rules::reference(&reference).is_err() {
        return Err(Problem::not_found());
    }
    let reference = reference.into_inner();
    let asker = Asker::Tenant(caller.tenant);
    let counting = async move { session::batch(&engine, &caller, &reference).await.map(|batch| (reference, batch)) };
    let (batch_reference, batch) = door.apart.verb(asker, counting).await??;
    Ok(HttpResponse::Ok().json(BatchSummaryView {
        batch_reference,
        sessions: batch.sessions,
        bytes: batch.bytes,
        counts: batch.counts.into_iter().map(|(status, count)| (state::name(status).to_owned(), count)).collect(),
        first_activity_at: Time(batch.first_activity_at),
        last_activity_at: Time(batch.last_activity_at),
    }))
}
