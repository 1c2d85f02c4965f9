//! `/app/assets/upload/complete-batch`.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use entity::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::complete::CompleteRequest;
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Error;
use crate::http::body::{self, Body};
use crate::http::caller::admit;
use crate::http::door::Door;
use crate::http::fields::Budget;
use crate::http::in_flight::{Room, ShareOwner, Written};
use crate::http::middleware::RequestId;
use crate::http::problem::{self, Answer, Document, FieldError, Problem};
use crate::http::rules::required;
use crate::session::{self, BatchCompletion, CompletedItem};
use crate::views::AssetView;
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
pub(crate) struct CompleteBatchRequest {
    /// Each session is completed on its own: one that fails does not affect the others.
    #[schema(required, nullable = false, min_items = 1, max_items = 1000, value_type = Vec<CompleteRequest>)]
    #[validate(required, length(min = 1, max = 1_000))]
    uploads: Option<Vec<Value>>,
}

/// The result of one session of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompletionResult)]
pub(crate) struct CompletedView {
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
pub(crate) struct CompleteBatchView {
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
pub(crate) async fn complete_batch(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    id: RequestId,
    body: Body<CompleteBatchRequest, { body::BATCH }>,
) -> Answer {
    admit(&engine, &caller, Permission::AssetsCreate).await?;
    let body_size = body.size();
    let sessions_max = (body_size / SESSION_BYTES_MIN).min(SESSIONS_MAX);
    let owner = ShareOwner::Tenant(caller.tenant);
    let bytes = body_size + sessions_max * SESSION_ANSWER_BYTES;
    let room = door.in_flight.reserve(owner, bytes).await?;
    let (uploads, wrong) = door.heavy.run(owner, body_size, move || understand(body)).await??;
    let completing = async move { session::complete_batch(&engine, &caller, uploads).await };
    let results = door.heavy.verb(owner, completing).await?;
    Ok(door.heavy.finish(owner, bytes, move || answer(room, &id, results, wrong)).await?.into())
}

/// Parses the sessions into the form that [`session::complete_batch`] takes, and what is wrong with each of those that are
/// left out.
fn understand(
    body: Body<CompleteBatchRequest, { body::BATCH }>,
) -> Result<(Vec<BatchCompletion>, Vec<Vec<FieldError>>), Problem> {
    let mut budget = Budget::default();
    let (body, ()) = body.parse_with(Ok(()), &mut budget, |_| None)?;
    let uploads = required("/uploads", body.uploads).map_err(Problem::invalid)?;
    let uploads = uploads.into_iter().map(|upload| {
        let named = upload.get("upload_session_id").and_then(Value::as_str);
        let session: Option<SessionId> = named.and_then(|id| id.parse().ok());
        let parsed = body::parse_value::<CompleteRequest>(&upload, &mut budget, |_| None);
        match parsed.and_then(CompleteRequest::into_completion) {
            Ok(completion) => (BatchCompletion { session, completion: Some(completion) }, vec![]),
            Err(wrong) => (BatchCompletion { session, completion: None }, wrong),
        }
    });
    Ok(uploads.unzip())
}

fn answer(
    room: Room,
    id: &RequestId,
    results: Vec<CompletedItem>,
    wrong: Vec<Vec<FieldError>>,
) -> Result<Written, Problem> {
    let made = results.iter().any(|item| matches!(item.result, Ok((_, true))));
    let outage = results.iter().all(|item| item.result.as_ref().is_err_and(Error::is_outage));
    let mut failed = Vec::new();
    let mut uploads = Vec::with_capacity(results.len());
    for (index, (item, wrong)) in results.into_iter().zip(wrong).enumerate() {
        give_way();
        let (result, asset, problem) = match item.result {
            Ok((asset, _)) => (CompletionVerdict::Completed, Some(AssetView::from(asset)), None),
            Err(error) => {
                let problem = Problem::from(error).after(wrong).within(&format!("/uploads/{index}"));
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
fn none_completed(outage: Option<&'static problem::ProblemKind>, batch: &CompleteBatchView) -> Problem {
    let problem = match outage {
        Some(kind) => Problem::unavailable(kind),
        None => Problem::new(&problem::VALIDATION_FAILED, "none of the sessions was completed"),
    };
    problem
        .with("completed", json!(batch.completed))
        .with("failed", json!(batch.failed))
        .with("uploads", json!(batch.uploads))
}
