use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::door::Door;
use crate::http::in_flight::ShareOwner;
use crate::http::problem::{Answer, Problem};
use crate::input::{Reference, Text as _};
use crate::session;
use crate::views::Time;

/// The state of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchSummary)]
pub(crate) struct BatchSummaryView {
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
pub(crate) async fn batch(engine: Data<Engine>, door: Data<Door>, caller: Caller, reference: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let reference = Reference::parse(reference.into_inner()).map_err(|_| Problem::not_found())?;
    let owner = ShareOwner::Tenant(caller.tenant);
    let counting = async move { session::batch(&engine, &caller, &reference).await.map(|batch| (reference, batch)) };
    let (batch_reference, batch) = door.heavy.verb(owner, counting).await??;
    Ok(HttpResponse::Ok().json(BatchSummaryView {
        batch_reference: batch_reference.into_string(),
        sessions: batch.sessions,
        bytes: batch.bytes,
        counts: batch.counts.into_iter().map(|(status, count)| (status.name().to_owned(), count)).collect(),
        first_activity_at: Time(batch.first_activity_at),
        last_activity_at: Time(batch.last_activity_at),
    }))
}
