use actix_web::http::StatusCode;
use actix_web::web::Data;
use entity::BrandId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use validator::Validate;

use super::initiate::{FileRequest, InitiatedView};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Error;
use crate::http::body::{self, Body};
use crate::http::caller::admit;
use crate::http::door::Door;
use crate::http::fields::{Budget, shortened};
use crate::http::idempotency_key::IdempotencyKey;
use crate::http::in_flight::{Room, ShareOwner, Written};
use crate::http::middleware::RequestId;
use crate::http::problem::{self, Answer, Document, FieldError, Problem};
use crate::http::rules::{self, required, typed};
use crate::input::{self, Reference};
use crate::session::{self, BatchFile};
use crate::yielding::give_way;

/// The most files of a batch, and the fewest bytes that one takes in a body: `{"file_name":"a","file_size":1}`.
const FILES_MAX: usize = 1_000;

const FILE_BYTES_MIN: usize = 32;

/// The most bytes that a file takes in the answer beyond its part of the body.
const FILE_ANSWER_BYTES: usize = 2 << 10;

/// Files to upload, each handled on its own.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// Generated if absent.
    #[schema(format = "reference")]
    #[validate(custom(function = "rules::text::<Reference>"))]
    batch_reference: Option<String>,
    /// For the files that name no brand.
    #[schema(value_type = Option<Uuid>)]
    brand_id: Option<BrandId>,
    /// Each file is handled on its own: one that is rejected does not affect the others.
    #[schema(required, nullable = false, min_items = 1, max_items = 1000, value_type = Vec<FileRequest>)]
    #[validate(required, length(min = 1, max = 1_000))]
    files: Option<Vec<Value>>,
}

/// The result of one file of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub(crate) struct BatchItemView {
    index: usize,
    client_reference: Option<String>,
    result: BatchVerdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    upload: Option<InitiatedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Document>)]
    problem: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BatchVerdict {
    Accepted,
    Rejected,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchAnswer)]
pub(crate) struct BatchView {
    batch_reference: String,
    accepted: usize,
    rejected: usize,
    /// In the order of the files.
    uploads: Vec<BatchItemView>,
}

/// Opens a session for each file.
#[utoipa::path(
    post, path = "/app/uploads/initiate-batch", tag = "uploads", request_body = BatchRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Up to 128 printable ASCII characters; applies to each file by its position.", format = "idempotency-key")),
    responses(
        (status = 201, description = "All accepted, at least one of them new", body = BatchView),
        (status = 200, description = "All existed already", body = BatchView),
        (status = 207, description = "Some were rejected", body = BatchView),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(crate) async fn initiate_batch(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    id: RequestId,
    key: IdempotencyKey,
    body: Body<BatchRequest, { body::BATCH }>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    let body_size = body.size();
    let files_max = (body_size / FILE_BYTES_MIN).min(FILES_MAX);
    let owner = ShareOwner::Tenant(caller.tenant);
    let bytes = body_size + files_max * FILE_ANSWER_BYTES;
    let room = door.in_flight.reserve(owner, bytes).await?;
    let key = key.parse();
    let understand = {
        let (engine, caller) = (engine.clone(), caller.clone());
        move || understand_batch(&engine, &caller, key, body)
    };
    let Understood { batch_reference, files, wrong } = door.heavy.run(owner, body_size, understand).await??;
    let opening = async move { session::initiate_batch(&engine, &caller, files).await };
    let results = door.heavy.verb(owner, opening).await?;
    let answer = door.heavy.finish(owner, bytes, move || batch_answer(room, &id, batch_reference, results, wrong));
    Ok(answer.await?.into())
}

/// A batch as [`session::initiate_batch`] takes it.
struct Understood {
    batch_reference: Reference,
    files: Vec<BatchFile>,
    /// What is wrong with each of the files that are left out.
    wrong: Vec<Vec<FieldError>>,
}

fn understand_batch(
    engine: &Engine,
    caller: &Caller,
    key: Result<Option<input::IdempotencyKey>, FieldError>,
    body: Body<BatchRequest, { body::BATCH }>,
) -> Result<Understood, Problem> {
    let mut budget = Budget::default();
    let (body, key) = body.parse_with(key, &mut budget, |_| None)?;
    let named = typed("/batch_reference", body.batch_reference).map_err(Problem::invalid)?;
    let batch_reference = named.unwrap_or_else(|| session::batch_reference(caller, key.as_ref()));
    let (mut files, mut wrong) = (Vec::new(), Vec::new());
    let requested = required("/files", body.files).map_err(Problem::invalid)?;
    for (index, file) in requested.into_iter().enumerate() {
        let client_reference = file.get("client_reference").and_then(Value::as_str).map(str::to_owned);
        let key = key.as_ref().map(|key| key.of_file(index));
        let new = body::parse_value::<FileRequest>(&file, &mut budget, |file| file.wrong_size(engine))
            .and_then(|file| file.into_new(Some(batch_reference.clone()), body.brand_id, key));
        let (file, errors) = match new {
            Ok(new) => (Some(new), vec![]),
            Err(errors) => (None, errors),
        };
        files.push(BatchFile { client_reference, file });
        wrong.push(errors);
    }
    Ok(Understood { batch_reference, files, wrong })
}

fn batch_answer(
    room: Room,
    id: &RequestId,
    batch_reference: Reference,
    results: Vec<session::BatchItem>,
    wrong: Vec<Vec<FieldError>>,
) -> Result<Written, Problem> {
    let created = results.iter().any(|item| item.result.as_ref().is_ok_and(|done| done.created));
    let outage = results.iter().all(|item| item.result.as_ref().is_err_and(Error::is_outage));
    let mut rejected = Vec::new();
    let mut uploads = Vec::with_capacity(results.len());
    for (index, (item, wrong)) in results.into_iter().zip(wrong).enumerate() {
        give_way();
        let (result, upload, problem) = match item.result {
            Ok(done) => (BatchVerdict::Accepted, Some(done.into()), None),
            Err(error) => {
                let problem = Problem::from(error).after(wrong).within(&format!("/files/{index}"));
                let kind = problem.kind();
                let value = problem.into_value(id.as_str());
                rejected.push(kind);
                (BatchVerdict::Rejected, None, Some(value))
            }
        };
        let client_reference = item.client_reference.as_deref().map(shortened);
        uploads.push(BatchItemView { index, client_reference, result, upload, problem });
    }
    let batch_reference = batch_reference.into_string();
    let view =
        BatchView { batch_reference, accepted: uploads.len() - rejected.len(), rejected: rejected.len(), uploads };
    match (view.accepted, view.rejected) {
        (_, 0) if created => Ok(room.write(StatusCode::CREATED, &view)),
        (_, 0) => Ok(room.write(StatusCode::OK, &view)),
        (0, _) => Err(none_accepted(rejected.first().copied().filter(|_| outage), &view).sealed(id.as_str(), room)),
        _ => Ok(room.write(StatusCode::MULTI_STATUS, &view)),
    }
}

/// The problem for a batch of which nothing was accepted; it also has the members of the batch's answer.
fn none_accepted(outage: Option<&'static problem::ProblemKind>, batch: &BatchView) -> Problem {
    let problem = match outage {
        Some(kind) => Problem::unavailable(kind),
        None => Problem::new(&problem::VALIDATION_FAILED, "none of the files was accepted"),
    };
    problem
        .with("batch_reference", json!(batch.batch_reference))
        .with("accepted", json!(batch.accepted))
        .with("rejected", json!(batch.rejected))
        .with("uploads", json!(batch.uploads))
}
