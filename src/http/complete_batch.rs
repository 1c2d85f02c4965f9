//! `/app/assets/upload/complete-batch`.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use entity::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::admit;
use super::assets::CompleteRequest;
use super::body::{self, Body};
use super::door::Door;
use super::fields::Budget;
use super::in_flight::{Asker, Room, Written};
use super::middleware::RequestId;
use super::problem::{self, Answer, Document, Problem};
use super::views::AssetView;
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Error;
use crate::session::{self, BatchCompletion, CompletedItem};
use crate::yielding::give_way;

const SESSIONS_MAX: usize = 1_000;
/// The fewest bytes that a session takes in the body: its id and the member's name.
const SESSION_BYTES_MIN: usize = 60;
/// The most bytes that a session takes in the answer beyond its part of the body: the asset with its metadata, or a
/// problem.
const SESSION_ANSWER_BYTES: usize = 8 * 1_024;

/// Sessions to complete, whose bytes are all in the store.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteBatchRequest {
    /// Each session is completed on its own: one that fails does not affect the others.
    #[schema(required, nullable = false, min_items = 1, max_items = 1000, value_type = Vec<CompleteRequest>)]
    #[validate(required, length(min = 1, max = 1_000))]
    uploads: Option<Vec<Value>>,
}

/// The result of one session of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompletionResult)]
pub(super) struct CompletedView {
    index: usize,
    /// Null if the request did not give a valid id.
    upload_session_id: Option<Uuid>,
    result: CompletionVerdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    asset: Option<AssetView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Document>)]
    problem: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CompletionVerdict {
    Completed,
    Failed,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompleteBatchAnswer)]
pub(super) struct CompleteBatchView {
    completed: usize,
    failed: usize,
    /// In the order of the request.
    uploads: Vec<CompletedView>,
}

/// Completes many uploads whose bytes are all in the store, each on its own. Safe to repeat.
#[utoipa::path(
    post, path = "/app/assets/upload/complete-batch", tag = "assets", request_body = CompleteBatchRequest,
    responses(
        (status = 201, description = "All completed, at least one of them by this request", body = CompleteBatchView),
        (status = 200, description = "All were completed before", body = CompleteBatchView),
        (status = 207, description = "Some failed", body = CompleteBatchView),
    ),
    extensions(("x-permission" = json!("assets.create"))),
)]
pub(super) async fn complete_batch(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    id: RequestId,
    body: Body<CompleteBatchRequest, { body::BATCH }>,
) -> Answer {
    admit(&engine, &caller, Permission::AssetsCreate).await?;
    let body_size = body.size();
    let sessions_max = (body_size / SESSION_BYTES_MIN).min(SESSIONS_MAX);
    let asker = Asker::Tenant(caller.tenant);
    let bytes = body_size + sessions_max * SESSION_ANSWER_BYTES;
    let room = door.in_flight.reserve(asker, bytes).await?;
    let uploads = door.apart.run(asker, body_size, move || understand(body)).await??;
    let completing = async move { session::complete_batch(&engine, &caller, uploads).await };
    let results = door.apart.verb(asker, completing).await?;
    Ok(door.apart.finish(asker, bytes, move || answer(room, &id, results)).await?.into())
}

/// Parses the sessions into the form that [`session::complete_batch`] takes.
fn understand(body: Body<CompleteBatchRequest, { body::BATCH }>) -> Result<Vec<BatchCompletion>, Problem> {
    let mut budget = Budget::default();
    let (body, ()) = body.parse_with(Ok(()), &mut budget, |_| None)?;
    let uploads = body.uploads.unwrap_or_default().into_iter().map(|upload| {
        let named = upload.get("upload_session_id").and_then(Value::as_str);
        let session: Option<SessionId> = named.and_then(|id| id.parse().ok());
        (
            session,
            body::parse_value::<CompleteRequest>(&upload, &mut budget, |_| None).map(CompleteRequest::into_completion),
        )
    });
    Ok(uploads.collect())
}

fn answer(room: Room, id: &RequestId, results: Vec<CompletedItem>) -> Result<Written, Problem> {
    let made = results.iter().any(|item| matches!(item.result, Ok((_, true))));
    let outage = results.iter().all(|item| item.result.as_ref().is_err_and(Error::is_outage));
    let mut failed = Vec::new();
    let mut uploads = Vec::with_capacity(results.len());
    for (index, item) in results.into_iter().enumerate() {
        give_way();
        let (result, asset, problem) = match item.result {
            Ok((asset, _)) => (CompletionVerdict::Completed, Some(AssetView::from(asset)), None),
            Err(error) => {
                let problem = Problem::from(error.within(&format!("/uploads/{index}")));
                failed.push(problem.kind());
                (CompletionVerdict::Failed, None, Some(problem.into_value(id.as_str())))
            }
        };
        let upload_session_id = item.session.map(|id| id.0);
        uploads.push(CompletedView { index, upload_session_id, result, asset, problem });
    }
    let view = CompleteBatchView { completed: uploads.len() - failed.len(), failed: failed.len(), uploads };
    match (view.completed, view.failed) {
        (_, 0) if made => Ok(room.write(StatusCode::CREATED, &view)),
        (_, 0) => Ok(room.write(StatusCode::OK, &view)),
        (0, _) => Err(none_completed(failed.first().copied().filter(|_| outage), &view).sealed(id.as_str(), room)),
        _ => Ok(room.write(StatusCode::MULTI_STATUS, &view)),
    }
}

/// The problem for a batch of which nothing was completed; it also has the members of the batch's answer.
fn none_completed(outage: Option<&'static problem::Kind>, batch: &CompleteBatchView) -> Problem {
    let problem = match outage {
        Some(kind) => Problem::unavailable(kind),
        None => Problem::new(&problem::VALIDATION_FAILED, "none of the sessions was completed"),
    };
    problem
        .with("completed", json!(batch.completed))
        .with("failed", json!(batch.failed))
        .with("uploads", json!(batch.uploads))
}
