//! `/app/uploads`: handlers beside their JSON shapes.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use entity::BrandId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::body::{self, Body, Nothing};
use super::door::Door;
use super::fields::{Budget, shortened};
use super::idempotency_key::IdempotencyKey;
use super::in_flight::{Asker, Room, Written};
use super::middleware::{RequestId, name_session};
use super::problem::{self, Answer, Document, Problem};
use super::rules;
use super::views::{EventView, PutView, SessionView, StatusView, Time, put_headers};
use super::{admit, session_of};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};
use crate::session::{self, BatchFile, Initiated, NewUpload, NoResume, PartUrl, Wanted};
use crate::yielding::give_way;

/// The most files of a batch, and the fewest bytes that one takes in a body: `{"file_name":"a","file_size":1}`.
const FILES_MAX: usize = 1_000;
const FILE_BYTES_MIN: usize = 32;

/// The most bytes of answers: for a file of a batch beyond its part of the body, for a part's URL, for what a stream of
/// these holds at a time, for the store's list of 10,000 parts, and for a history.
const FILE_ANSWER_BYTES: usize = 2 << 10;
const PART_URL_BYTES: usize = 1 << 10;
const STREAM_BYTES: usize = 128 << 10;
const RESUME_BYTES: usize = 1 << 20;
const EVENTS_BYTES: usize = 256 << 10;

/// Makes the two shapes of a file to upload from one list of fields; only a single file names its batch itself. (serde
/// cannot refuse unknown fields of a flattened struct.)
macro_rules! file_request {
    ($(#[$doc:meta])* $name:ident { $($extra:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, Validate, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            /// Kept unchanged: 1 to 255 Unicode scalars, no control character, `/` or `\`.
            #[schema(required, nullable = false, min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f/\\]+$")]
            #[validate(required, custom(function = "rules::file_name"))]
            file_name: Option<String>,
            /// Bytes.
            #[schema(required, nullable = false, minimum = 0, maximum = 5497558138880_i64)]
            #[validate(required, range(min = 0))]
            file_size: Option<i64>,
            /// A media type (RFC 9110); `application/octet-stream` if absent or empty.
            #[schema(max_length = 128, pattern = r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?$")]
            #[validate(custom(function = "rules::media_type"))]
            mime_type: Option<String>,
            /// May be left out if the caller holds exactly one brand.
            #[schema(value_type = Option<Uuid>)]
            brand_id: Option<BrandId>,
            /// The caller's own name for the file; unique for a user within a brand and `batch_reference`.
            #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
            #[validate(custom(function = "rules::reference"))]
            client_reference: Option<String>,
            $($extra)*
            /// Identifies the same file in a later run.
            #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
            #[validate(custom(function = "rules::reference"))]
            fingerprint: Option<String>,
            /// 64 hex digits. In a direct upload it is sent to the store: a store that checks it refuses other bytes.
            #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
            #[validate(custom(function = "rules::sha256_hex"))]
            checksum_sha256: Option<String>,
            /// Up to 4 KiB as compact JSON.
            #[schema(value_type = Option<Object>)]
            #[validate(custom(function = "rules::metadata"))]
            metadata: Option<rules::Object>,
        }

        impl $name {
            /// Checks the size against the limits of the settings and the store, which the rules above do not know.
            fn wrong_size(&self, engine: &Engine) -> Option<FieldError> {
                session::wrong_size(engine, u64::try_from(self.file_size?).ok()?)
            }

            fn into_new(
                self,
                batch_reference: Option<String>,
                brand: Option<BrandId>,
                idempotency_key: Option<String>,
            ) -> NewUpload {
                NewUpload {
                    // Name and size are present: `required` has been checked.
                    file_name: self.file_name.unwrap_or_default(),
                    file_size: self.file_size.unwrap_or_default().unsigned_abs(),
                    mime_type: self
                        .mime_type
                        .filter(|given| !given.is_empty())
                        .unwrap_or_else(|| "application/octet-stream".to_owned()),
                    brand_id: self.brand_id.or(brand),
                    client_reference: self.client_reference,
                    batch_reference,
                    fingerprint: self.fingerprint,
                    checksum_sha256: self.checksum_sha256.map(|hex| hex.to_ascii_lowercase()),
                    metadata: Value::Object(self.metadata.map(|metadata| metadata.0).unwrap_or_default()),
                    idempotency_key,
                }
            }
        }
    };
}

file_request! {
    /// One file of a batch.
    FileRequest {}
}
file_request! {
    /// A single file to upload.
    InitiateRequest {
        /// The batch that the file belongs to.
        #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
        #[validate(custom(function = "rules::reference"))]
        batch_reference: Option<String>,
    }
}

/// Files to upload, each handled on its own.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    /// Generated if absent.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    #[validate(custom(function = "rules::reference"))]
    batch_reference: Option<String>,
    /// For the files that name no brand.
    #[schema(value_type = Option<Uuid>)]
    brand_id: Option<BrandId>,
    /// Each file is handled on its own: one that is rejected does not affect the others.
    #[schema(required, nullable = false, min_items = 1, max_items = 1000, value_type = Vec<FileRequest>)]
    #[validate(required, length(min = 1, max = 1_000))]
    files: Option<Vec<Value>>,
}

/// The session and, if it is direct, where to send the bytes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Initiated)]
pub(super) struct InitiatedView {
    #[serde(flatten)]
    session: SessionView,
    #[serde(flatten)]
    put: PutView,
}

impl From<Initiated> for InitiatedView {
    fn from(initiated: Initiated) -> Self {
        Self { session: initiated.session.into(), put: initiated.put.into() }
    }
}

/// The result of one file of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub(super) struct BatchItemView {
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
pub(super) struct BatchView {
    batch_reference: String,
    accepted: usize,
    rejected: usize,
    /// In the order of the files.
    uploads: Vec<BatchItemView>,
}

/// Opens an upload session, or returns the one that the same references have opened.
#[utoipa::path(
    post, path = "/app/uploads/initiate", tag = "uploads", request_body = InitiateRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Up to 128 printable ASCII characters.", min_length = 1, max_length = 128, pattern = "^[\\x20-\\x7e]+$")),
    responses(
        (status = 201, description = "Opened", body = InitiatedView),
        (status = 200, description = "The session existed already", body = InitiatedView),
        (status = 409, description = "`reference-conflict`, `quota-exceeded`, `tenant-suspended`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(super) async fn initiate(
    engine: Data<Engine>,
    caller: Caller,
    key: IdempotencyKey,
    body: Body<InitiateRequest>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    let (mut file, key) = body.parse_with(key.parse(), &mut Budget::default(), |file| file.wrong_size(&engine))?;
    let batch_reference = file.batch_reference.take();
    let new = file.into_new(batch_reference, None, key);
    let done = session::initiate(&engine, &caller, new).await?;
    name_session(done.session.id);
    let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(HttpResponse::build(status).json(InitiatedView::from(done)))
}

/// Opens a session for each file.
#[utoipa::path(
    post, path = "/app/uploads/initiate-batch", tag = "uploads", request_body = BatchRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Up to 128 printable ASCII characters; applies to each file by its position.", min_length = 1, max_length = 128, pattern = "^[\\x20-\\x7e]+$")),
    responses(
        (status = 201, description = "All accepted, at least one of them new", body = BatchView),
        (status = 200, description = "All existed already", body = BatchView),
        (status = 207, description = "Some were rejected", body = BatchView),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(super) async fn initiate_batch(
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
    let asker = Asker::Tenant(caller.tenant);
    let bytes = body_size + files_max * FILE_ANSWER_BYTES;
    let room = door.in_flight.reserve(asker, bytes).await?;
    let key = key.parse();
    let understand = {
        let (engine, caller) = (engine.clone(), caller.clone());
        move || understand_batch(&engine, &caller, key, body)
    };
    let (batch_reference, files) = door.apart.run(asker, body_size, understand).await??;
    let opening = async move { session::initiate_batch(&engine, &caller, files).await };
    let results = door.apart.verb(asker, opening).await?;
    let answer = door.apart.finish(asker, bytes, move || batch_answer(room, &id, batch_reference, results));
    Ok(answer.await?.into())
}

/// Parses the batch's reference, and its files into the form that [`session::initiate_batch`] takes.
fn understand_batch(
    engine: &Engine,
    caller: &Caller,
    key: std::result::Result<Option<String>, FieldError>,
    body: Body<BatchRequest, { body::BATCH }>,
) -> std::result::Result<(String, Vec<BatchFile>), Problem> {
    let mut budget = Budget::default();
    let (body, key) = body.parse_with(key, &mut budget, |_| None)?;
    let batch_reference = body.batch_reference.unwrap_or_else(|| session::batch_reference(caller, key.as_deref()));
    let files = body.files.unwrap_or_default().into_iter().enumerate().map(|(index, file)| {
        let client_reference = file.get("client_reference").and_then(Value::as_str).map(str::to_owned);
        // A caller's own key cannot contain a line break, so no key of a single upload equals one of these.
        let key = key.as_ref().map(|key| format!("{key}\n{index}"));
        let new = body::parse_value::<FileRequest>(&file, &mut budget, |file| file.wrong_size(engine))
            .map(|file| file.into_new(Some(batch_reference.clone()), body.brand_id, key));
        (client_reference, new)
    });
    let files = files.collect();
    Ok((batch_reference, files))
}

fn batch_answer(
    room: Room,
    id: &RequestId,
    batch_reference: String,
    results: Vec<session::BatchItem>,
) -> std::result::Result<Written, Problem> {
    let created = results.iter().any(|item| item.result.as_ref().is_ok_and(|done| done.created));
    let outage = results.iter().all(|item| item.result.as_ref().is_err_and(Error::is_outage));
    let mut rejected = Vec::new();
    let mut uploads = Vec::with_capacity(results.len());
    for (index, item) in results.into_iter().enumerate() {
        give_way();
        let (result, upload, problem) = match item.result {
            Ok(done) => (BatchVerdict::Accepted, Some(done.into()), None),
            Err(error) => {
                let problem = Problem::from(error.within(&format!("/files/{index}")));
                let kind = problem.kind();
                let value = problem.into_value(id.as_str());
                rejected.push(kind);
                (BatchVerdict::Rejected, None, Some(value))
            }
        };
        let client_reference = item.client_reference.as_deref().map(shortened);
        uploads.push(BatchItemView { index, client_reference, result, upload, problem });
    }
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
fn none_accepted(outage: Option<&'static problem::Kind>, batch: &BatchView) -> Problem {
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

/// The part that a URL is wanted for.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PartUrlRequest {
    /// 1 to the session's `total_parts`.
    #[schema(required, nullable = false, minimum = 1, maximum = 10000)]
    #[validate(required)]
    part_number: Option<i64>,
}

/// The URL for one part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PartUrl)]
pub(super) struct PartUrlView {
    part_number: u32,
    upload_url: String,
    /// `PUT`.
    upload_method: &'static str,
    /// Send these headers exactly.
    #[schema(value_type = std::collections::HashMap<String, String>)]
    upload_headers: Map<String, Value>,
    /// The part's first byte in the file.
    offset: u64,
    /// Bytes of the part; the URL accepts no other number.
    size: u64,
}

impl From<PartUrl> for PartUrlView {
    fn from(part: PartUrl) -> Self {
        Self {
            part_number: part.part_number,
            upload_url: part.upload_url,
            upload_method: "PUT",
            upload_headers: put_headers(vec![]),
            offset: part.offset,
            size: part.size,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SinglePartUrl)]
pub(super) struct SinglePartUrlView {
    #[serde(flatten)]
    part: PartUrlView,
    expires_at: Time,
}

/// Returns the URL for one part. No side effect.
#[utoipa::path(
    post, path = "/app/uploads/{id}/multipart-part-url", tag = "uploads", request_body = PartUrlRequest,
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "Valid for 15 minutes by default, and never longer than the session", body = SinglePartUrlView),
        (status = 409, description = "`illegal-transition`, `session-expired`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(super) async fn part_url(
    engine: Data<Engine>,
    caller: Caller,
    id: Path<String>,
    body: Body<PartUrlRequest>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    let number = body.parse()?.part_number.unwrap_or_default();
    let (part, expires_at) = session::part_url(&engine, &caller, session_of(&id)?, number).await?;
    Ok(HttpResponse::Ok().json(SinglePartUrlView { part: part.into(), expires_at: Time(expires_at) }))
}

/// The parts that URLs are wanted for: `part_numbers`, or `from` and `to`; up to 10,000.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct PartUrlsRequest {
    #[validate(length(min = 1, max = 10_000))]
    part_numbers: Option<Vec<i64>>,
    from: Option<i64>,
    to: Option<i64>,
}

/// The parts that URLs are wanted for, in one of two forms.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = PartUrlsRequest)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum PartUrlsForms {
    These(TheseParts),
    Range(PartRange),
}

/// Parts by their numbers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct TheseParts {
    #[schema(min_items = 1, max_items = 10000)]
    part_numbers: Vec<PartNumber>,
}

/// A range of parts, both ends included.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct PartRange {
    from: PartNumber,
    to: PartNumber,
}

/// 1 to the session's `total_parts`.
#[derive(Deserialize, ToSchema)]
#[schema(minimum = 1, maximum = 10000)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct PartNumber(i64);

impl PartUrlsRequest {
    fn wanted(self) -> Result<Wanted> {
        match (self.part_numbers, self.from, self.to) {
            (Some(numbers), None, None) => Ok(Wanted::These(numbers)),
            (None, Some(from), Some(to)) => Ok(Wanted::Range { from, to }),
            (None, _, None) | (None, None, _) => {
                let missing = |name: &str| FieldError::new(name, "required", "give part_numbers, or from and to");
                Err(Error::Invalid(match (self.from, self.to) {
                    (Some(_), None) => vec![missing("/to")],
                    (None, Some(_)) => vec![missing("/from")],
                    _ => vec![missing("/part_numbers")],
                }))
            }
            (Some(_), _, _) => {
                let detail = "give part_numbers, or from and to, not both";
                Err(Error::Invalid(vec![FieldError::new("/part_numbers", "conflict", detail)]))
            }
        }
    }
}

#[derive(ToSchema)]
#[schema(as = PartUrls)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct PartUrlsView {
    multipart_upload_id: String,
    expires_at: Time,
    /// In the order of the request.
    parts: Vec<PartUrlView>,
}

/// The members before the parts of [`PartUrlsView`]. The parts are made while they are sent.
#[derive(Serialize)]
struct PartUrlsHead {
    multipart_upload_id: String,
    expires_at: Time,
}

/// Returns the URLs for many parts. No side effect.
#[utoipa::path(
    post, path = "/app/uploads/{id}/multipart-part-urls", tag = "uploads", request_body = PartUrlsForms,
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "Valid for 15 minutes by default, and never longer than the session", body = PartUrlsView),
        (status = 409, description = "`illegal-transition`, `session-expired`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(super) async fn part_urls(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    id: Path<String>,
    body: Body<PartUrlsRequest, { body::PARTS }>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    let wanted = door.apart.run(Asker::Tenant(caller.tenant), body.size(), move || body.parse()).await??.wanted()?;
    let urls = session::part_urls(&engine, &caller, session_of(&id)?, wanted).await?;
    let bytes = STREAM_BYTES.min(urls.size_hint().0 * PART_URL_BYTES);
    let room = door.in_flight.reserve(Asker::Tenant(caller.tenant), bytes).await?;
    let head =
        PartUrlsHead { multipart_upload_id: urls.multipart_upload_id.clone(), expires_at: Time(urls.expires_at) };
    Ok(room.json_list(&head, "parts", urls.map(PartUrlView::from)))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadedPart)]
pub(super) struct UploadedPartView {
    part_number: u32,
    /// Null if the object is already assembled.
    etag: Option<String>,
    size: u64,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = NoResumeReason)]
pub(super) enum NoResumeView {
    Terminal,
    Expired,
    StorageUploadLost,
}

impl From<NoResume> for NoResumeView {
    fn from(reason: NoResume) -> Self {
        match reason {
            NoResume::Terminal => Self::Terminal,
            NoResume::Expired => Self::Expired,
            NoResume::StorageUploadLost => Self::StorageUploadLost,
        }
    }
}

/// The session, and all that a client needs to resume.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resume)]
pub(super) struct ResumeView {
    #[serde(flatten)]
    session: SessionView,
    can_resume: bool,
    reason: Option<NoResumeView>,
    /// The parts that the store holds.
    uploaded_parts: Vec<UploadedPartView>,
    uploaded_bytes: u64,
    /// All null unless the caller has `uploads.create`.
    #[serde(flatten)]
    put: PutView,
}

/// Returns what the store holds of the upload, as the store reports it. Counts as activity.
#[utoipa::path(
    get, path = "/app/uploads/{id}/resume", tag = "uploads", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The session, in any state", body = ResumeView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(super) async fn resume(engine: Data<Engine>, door: Data<Door>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let room = door.in_flight.reserve(Asker::Tenant(caller.tenant), RESUME_BYTES).await?;
    let resume = session::resume(&engine, &caller, session_of(&id)?).await?;
    let part = |part: session::Held| UploadedPartView { part_number: part.number, etag: part.etag, size: part.size };
    let view = ResumeView {
        session: resume.session.into(),
        can_resume: resume.can_resume,
        reason: resume.reason.map(Into::into),
        uploaded_parts: resume.parts.into_iter().map(part).collect(),
        uploaded_bytes: resume.uploaded_bytes,
        put: resume.put.into(),
    };
    Ok(room.json(StatusCode::OK, &view))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Activity)]
pub(super) struct ActivityView {
    upload_session_id: Uuid,
    status: StatusView,
    last_activity_at: Time,
    expires_at: Time,
}

/// Records that the upload is still being worked on.
#[utoipa::path(
    put, path = "/app/uploads/{id}/activity", tag = "uploads", params(("id" = Uuid, Path)),
    request_body = Nothing,
    responses(
        (status = 200, description = "Recorded", body = ActivityView),
        (status = 409, description = "`illegal-transition`, `session-expired`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(super) async fn activity(engine: Data<Engine>, caller: Caller, id: Path<String>, body: Body<Nothing>) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    body.parse()?;
    let session = session::touch(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(ActivityView {
        upload_session_id: session.id.0,
        status: session.status.into(),
        last_activity_at: Time(session.last_activity_at),
        expires_at: Time(session.expires_at),
    }))
}

/// Cancels the upload. Safe to repeat.
#[utoipa::path(
    post, path = "/app/uploads/{id}/cancel", tag = "uploads", params(("id" = Uuid, Path)),
    request_body = Nothing,
    responses((status = 200, description = "The session: CANCELLED, or in the terminal state that it already had", body = SessionView)),
    extensions(("x-permission" = json!("uploads.cancel"))),
)]
pub(super) async fn cancel(engine: Data<Engine>, caller: Caller, id: Path<String>, body: Body<Nothing>) -> Answer {
    admit(&engine, &caller, Permission::UploadsCancel).await?;
    body.parse()?;
    let session = session::cancel(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(SessionView::from(session)))
}

/// Returns the session in its current state.
#[utoipa::path(
    get, path = "/app/uploads/{id}", tag = "uploads", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The session", body = SessionView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(super) async fn find(engine: Data<Engine>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let session = session::find(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(SessionView::from(session)))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadEvents)]
pub(super) struct EventsView {
    /// Oldest first.
    data: Vec<EventView>,
}

/// Returns the session's history.
#[utoipa::path(
    get, path = "/app/uploads/{id}/events", tag = "uploads", params(("id" = Uuid, Path)),
    responses((status = 200, description = "Oldest first", body = EventsView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(super) async fn events(engine: Data<Engine>, door: Data<Door>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let room = door.in_flight.reserve(Asker::Tenant(caller.tenant), EVENTS_BYTES).await?;
    let events = session::events(&engine, &caller, session_of(&id)?).await?;
    Ok(room.json(StatusCode::OK, &EventsView { data: events.into_iter().map(Into::into).collect() }))
}
