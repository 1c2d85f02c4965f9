//! Answers to requests that fail: `application/problem+json` (RFC 9457). How each error looks on the wire is written here
//! and nowhere else.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{self, Bytes};
use actix_web::{HttpResponse, ResponseError, Route};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::heavy_work::to_json;
use super::in_flight::Room;
use crate::database::DbErr;
use crate::error::{Error, Field, with_causes};
use crate::input::Wrong;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// How long a 503 asks a client to wait. Longer than most databases' proxies take to show a failover.
const RETRY_AFTER_SECS: u64 = 5;

/// The result of a handler.
pub(super) type Answer = Result<HttpResponse, Problem>;

/// How many of a session's missing parts are named.
const MISSING_PARTS_MAX: usize = 1_000;

/// One kind of problem: the members that are the same at every occurrence.
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemKind {
    pub status: StatusCode,
    /// Stable, for programs; the end of `type`.
    pub code: &'static str,
    pub title: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $status:ident, $code:literal, $title:literal;)*) => {
        $(pub const $name: ProblemKind = ProblemKind { status: StatusCode::$status, code: $code, title: $title };)*

        #[cfg(test)]
        pub const KINDS: &[ProblemKind] = &[$($name),*];
    };
}

kinds! {
    MALFORMED_BODY = BAD_REQUEST, "malformed-body", "The body cannot be read as JSON";
    UNAUTHENTICATED = UNAUTHORIZED, "unauthenticated", "A valid token is required";
    PERMISSION_DENIED = FORBIDDEN, "permission-denied", "The token does not allow this";
    PREFLIGHT_REFUSED = FORBIDDEN, "preflight-refused", "A page of this origin may not send this request";
    NOT_FOUND = NOT_FOUND, "not-found", "Not found";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not support this method";
    REQUEST_TIMEOUT = REQUEST_TIMEOUT, "request-timeout", "The request took too long to arrive";
    ILLEGAL_TRANSITION = CONFLICT, "illegal-transition", "The session's state does not allow this";
    SESSION_EXPIRED = CONFLICT, "session-expired", "The session has expired";
    UPLOAD_INCOMPLETE = CONFLICT, "upload-incomplete", "The store does not hold the whole file yet";
    PARTS_MISMATCH = CONFLICT, "parts-mismatch", "The list of parts does not match the store's";
    REFERENCE_CONFLICT = CONFLICT, "reference-conflict", "The reference belongs to another upload";
    TENANT_SUSPENDED = CONFLICT, "tenant-suspended", "The tenant cannot open new sessions";
    QUOTA_EXCEEDED = CONFLICT, "quota-exceeded", "The request exceeds the tenant's quota";
    ASSET_NOT_READY = CONFLICT, "asset-not-ready", "The asset cannot be downloaded";
    PASS_RUNNING = CONFLICT, "pass-running", "The pass is already running or queued";
    BUSY = CONFLICT, "busy", "The resource is in use by another request; try again";
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    UNSUPPORTED_MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be plain JSON";
    VALIDATION_FAILED = UNPROCESSABLE_ENTITY, "validation-failed", "The input is not valid";
    RATE_LIMITED = TOO_MANY_REQUESTS, "rate-limited", "Too many requests";
    INTERNAL = INTERNAL_SERVER_ERROR, "internal", "Internal server error";
    STORAGE_UNAVAILABLE = SERVICE_UNAVAILABLE, "storage-unavailable", "The object store is unavailable";
    TOO_MANY_READERS = SERVICE_UNAVAILABLE, "too-many-readers", "The server has no room for another live reader";
    KEYS_UNAVAILABLE = SERVICE_UNAVAILABLE, "keys-unavailable", "The identity provider cannot be reached";
    DATABASE_UNAVAILABLE = SERVICE_UNAVAILABLE, "database-unavailable", "The database cannot be reached";
}

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// `/problems/{code}`
    #[serde(rename = "type")]
    #[schema(example = "/problems/not-found")]
    kind: String,
    title: &'static str,
    status: u16,
    /// For people: describes this occurrence.
    detail: String,
    /// The request's id, which is also in the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// Stable, for programs.
    #[schema(example = "not-found")]
    code: &'static str,
    /// With `illegal-transition`: the session's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_status: Option<&'static str>,
    /// With `validation-failed`: every field that is invalid, missing or unknown. One answer names at most 1,000. If there
    /// are more, a last entry with the code `more-errors` says how many more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// With `upload-incomplete`: the first 1,000 missing parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_parts: Option<Vec<u32>>,
    /// With `upload-incomplete`: the bytes that the store holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    uploaded_bytes: Option<u64>,
    /// Seconds to wait before the next try; also in the `Retry-After` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// Members that only one operation has.
    #[serde(flatten)]
    #[schema(ignore)]
    more: Map<String, Value>,
}

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ProblemField)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) into the body, `?name` for a query parameter, or the name of a header.
    #[schema(example = "/files/3/file_size")]
    pub pointer: String,
    /// Stable, for programs.
    #[schema(example = "out-of-range")]
    pub code: &'static str,
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }

    pub fn of(pointer: impl Into<String>, wrong: Wrong) -> Self {
        Self::new(pointer, wrong.code(), wrong.to_string())
    }
}

/// Where a verb's field stands in the documents of the native API.
fn pointer(field: Field) -> String {
    match field {
        Field::BrandId => "/brand_id".to_owned(),
        Field::Bucket => "/bucket".to_owned(),
        Field::ClientReference => "/client_reference".to_owned(),
        Field::ExpiresIn => "?expires_in".to_owned(),
        Field::FileSize => "/file_size".to_owned(),
        Field::FirstDay => "?from".to_owned(),
        Field::FirstPart => "/from".to_owned(),
        Field::LastPart => "/to".to_owned(),
        Field::PartNumber => "/part_number".to_owned(),
        Field::PartNumbers(index) => format!("/part_numbers/{index}"),
        Field::Tenant => "?tenant".to_owned(),
        Field::Whole => String::new(),
    }
}

/// A refusal or a failure on its way to a client.
///
/// Returned from handlers and extractors. The middleware `observe` writes the body, because it knows the request's id, and
/// logs the cause, once.
#[derive(Debug)]
pub struct Problem {
    kind: &'static ProblemKind,
    document: Box<Document>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    sealed: Option<Box<Sealed>>,
}

/// A body that has been written, and its room until the answer takes that.
#[derive(Debug)]
struct Sealed {
    body: Bytes,
    room: Mutex<Option<Room>>,
}

impl Problem {
    pub fn new(kind: &'static ProblemKind, detail: impl Into<String>) -> Self {
        let document = Document {
            kind: format!("/problems/{}", kind.code),
            title: kind.title,
            status: kind.status.as_u16(),
            detail: detail.into(),
            instance: None,
            code: kind.code,
            upload_status: None,
            errors: Vec::new(),
            missing_parts: None,
            uploaded_bytes: None,
            retry_after: None,
            more: Map::new(),
        };
        Self { kind, document: Box::new(document), headers: Vec::new(), cause: None, sealed: None }
    }

    pub fn malformed_body(detail: impl Into<String>) -> Self {
        Self::new(&MALFORMED_BODY, detail)
    }

    pub fn body_too_large(limit_bytes: usize) -> Self {
        Self::new(&BODY_TOO_LARGE, format!("the body must be at most {limit_bytes} bytes"))
    }

    /// The fields that are wrong, each with its reason.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(&VALIDATION_FAILED, Error::Invalid(vec![]).to_string());
        problem.document.errors = errors;
        problem
    }

    /// Puts the pointers to wrong fields below `place`, such as a file of a batch.
    pub fn within(mut self, place: &str) -> Self {
        for error in &mut self.document.errors {
            error.pointer.insert_str(0, place);
        }
        self
    }

    /// Puts these wrong fields before those that the problem has.
    pub fn after(mut self, mut errors: Vec<FieldError>) -> Self {
        errors.append(&mut self.document.errors);
        self.document.errors = errors;
        self
    }

    /// The answer for every unknown path; the same as for an unknown id.
    pub fn not_found() -> Self {
        Error::NotFound.into()
    }

    pub fn method_not_allowed(allowed: &[&'static str]) -> Self {
        let allowed = with_head(allowed).join(", ");
        let allow = HeaderValue::from_str(&allowed).expect("method names are ASCII letters");
        Self::new(&METHOD_NOT_ALLOWED, format!("this path supports {allowed}")).with_header(header::ALLOW, allow)
    }

    /// `rejected` says what is wrong with the token. It is `None` if the request has no token: then the challenge must not
    /// name an error (RFC 6750, section 3.1).
    pub fn unauthenticated(rejected: Option<&'static str>) -> Self {
        let (detail, challenge) = match rejected {
            None => ("the request has no bearer token", r#"Bearer realm="quaymaster""#.to_owned()),
            Some(reason) => {
                let error =
                    format!(r#"Bearer realm="quaymaster", error="invalid_token", error_description="{reason}""#);
                (reason, error)
            }
        };
        let challenge = HeaderValue::try_from(challenge).expect("the reasons are plain ASCII");
        Self::new(&UNAUTHENTICATED, detail).with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// `wait` is the time until the user's next request is accepted.
    pub fn rate_limited(wait: Duration) -> Self {
        // Rounded up, so that a client that waits this long is not refused for the same reason.
        let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::new(&RATE_LIMITED, "nothing was done; send the same request again later").retry_after(secs.max(1))
    }

    /// Other answers that are being sent leave no room for this one.
    pub fn no_room(wait: Duration) -> Self {
        Self::new(&RATE_LIMITED, "too many answers are unread; read them, then send the request again")
            .retry_after(wait.as_secs())
    }

    /// The large requests that the sender has under way take all of its share.
    pub fn no_turn(wait: Duration) -> Self {
        Self::new(&RATE_LIMITED, "too many large requests at a time; nothing was done, send the same request later")
            .retry_after(wait.as_secs())
    }

    /// The token may be valid, but cannot be checked now: an honest client must not be sent to log in again.
    pub fn keys_unavailable(retry_after_secs: u64) -> Self {
        Self::new(&KEYS_UNAVAILABLE, "the keys to check the token cannot be fetched now; try again later")
            .retry_after(retry_after_secs)
    }

    /// Something that the server depends on does not answer now. The client should retry later.
    pub fn unavailable(kind: &'static ProblemKind) -> Self {
        Self::new(kind, "nothing is half done; send the same request again later").retry_after(RETRY_AFTER_SECS)
    }

    /// A bug. The cause goes to the log, unless it was logged where it occurred. The caller sees nothing of it.
    pub fn internal(cause: Option<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut problem = Self::new(&INTERNAL, "the server's log has details under the id in `instance`");
        problem.cause = cause;
        problem
    }

    /// Adds a member beside the standard ones, such as a batch's `uploads`.
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.document.more.insert(member.to_owned(), value);
        self
    }

    pub fn kind(&self) -> &'static ProblemKind {
        self.kind
    }

    pub fn code(&self) -> &'static str {
        self.document.code
    }

    /// Returns the problem as an object inside another answer, such as that of one file of a batch. Logs the cause here,
    /// because nothing else will.
    pub fn into_value(mut self, request_id: &str) -> Value {
        self.log();
        self.document.instance = Some(request_id.to_owned());
        serde_json::to_value(&self.document).unwrap_or_default()
    }

    /// Writes the body now, in the room that has been reserved for the answer.
    pub(super) fn sealed(mut self, instance: &str, room: Room) -> Self {
        let body = self.body(Some(instance));
        self.document.more = Map::new();
        self.sealed = Some(Box::new(Sealed { body, room: Mutex::new(Some(room)) }));
        self
    }

    /// Returns the room that was reserved for the body. Only the first call gets it.
    pub(super) fn take_room(&self) -> Option<Room> {
        self.sealed.as_ref()?.room.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The body; `instance` is the request's id.
    pub(super) fn body(&self, instance: Option<&str>) -> Bytes {
        if let Some(sealed) = &self.sealed {
            return sealed.body.clone();
        }
        #[derive(Serialize)]
        struct Instanced<'a> {
            #[serde(flatten)]
            document: &'a Document,
            instance: Option<&'a str>,
        }
        to_json(&Instanced { document: &self.document, instance }).unwrap_or_default().into()
    }

    /// The database's error, if that is the cause.
    pub(super) fn database_cause(&self) -> Option<&DbErr> {
        self.cause.as_deref()?.downcast_ref()
    }

    /// Logs the cause of a 5xx.
    pub(super) fn log(&self) {
        let Some(cause) = &self.cause else { return };
        let cause = with_causes(cause.as_ref());
        if self.kind.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(problem.code = self.code(), error = cause, "internal error");
        } else {
            tracing::warn!(problem.code = self.code(), error = cause, "not available");
        }
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn retry_after(mut self, secs: u64) -> Self {
        self.document.retry_after = Some(secs);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(secs))
    }

    fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        // No `_` arm: a new error must get its status here.
        match error {
            Error::NotFound => Self::new(&NOT_FOUND, detail),
            Error::PermissionDenied(_) => Self::new(&PERMISSION_DENIED, detail),
            Error::IllegalTransition { status, attempt: _ } => {
                let mut problem = Self::new(&ILLEGAL_TRANSITION, detail);
                problem.document.upload_status = Some(status.name());
                problem
            }
            Error::SessionExpired => Self::new(&SESSION_EXPIRED, detail),
            Error::UploadIncomplete { mut missing_parts, uploaded_bytes } => {
                missing_parts.truncate(MISSING_PARTS_MAX);
                let mut problem = Self::new(&UPLOAD_INCOMPLETE, detail);
                problem.document.missing_parts = Some(missing_parts);
                problem.document.uploaded_bytes = Some(uploaded_bytes);
                problem
            }
            Error::PartsMismatch(_) => Self::new(&PARTS_MISMATCH, detail),
            Error::ReferenceConflict(_) => Self::new(&REFERENCE_CONFLICT, detail),
            Error::TenantSuspended => Self::new(&TENANT_SUSPENDED, detail),
            Error::QuotaExceeded { .. } => Self::new(&QUOTA_EXCEEDED, detail),
            Error::AssetNotReady(_) => Self::new(&ASSET_NOT_READY, detail),
            Error::Busy(_) => Self::new(&BUSY, detail),
            Error::TooManyReaders => Self::new(&TOO_MANY_READERS, detail).retry_after(RETRY_AFTER_SECS),
            // Only work in the background fails with these.
            Error::LeaseLost | Error::BadJob(_) => Self::internal(Some(detail.into())),
            Error::Invalid(fields) => {
                let named = |(field, wrong): (Field, Wrong)| FieldError::of(pointer(field), wrong);
                Self::invalid(fields.into_iter().map(named).collect())
            }
            Error::Storage(cause) => {
                Self::new(&STORAGE_UNAVAILABLE, detail).retry_after(RETRY_AFTER_SECS).caused_by(cause)
            }
            Error::NoBucket(_) => Self::new(&STORAGE_UNAVAILABLE, "the store is not set up for this tenant")
                .retry_after(RETRY_AFTER_SECS)
                .caused_by(detail),
            Error::ForeignBucket { .. } => Self::new(&STORAGE_UNAVAILABLE, "the store is not set up for this server")
                .retry_after(RETRY_AFTER_SECS)
                .caused_by(detail),
            Error::DbUnavailable(cause) => {
                Self::new(&DATABASE_UNAVAILABLE, detail).retry_after(RETRY_AFTER_SECS).caused_by(cause)
            }
            Error::Db(cause) => Self::internal(Some(cause.into())),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.document.code, self.document.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.kind.status);
        for header in &self.headers {
            response.insert_header(header.clone());
        }
        response.content_type(CONTENT_TYPE).body(self.body(None))
    }
}

/// Answers every path that has no route: `App::default_service(unknown_path())`.
pub fn unknown_path() -> Route {
    web::route().to(async || Err::<HttpResponse, _>(Problem::not_found()))
}

/// Answers the methods that a resource does not have: `.default_service(only(vec!["GET", "PUT"]))`.
pub fn only(methods: Vec<&'static str>) -> Route {
    let methods: Arc<[_]> = methods.into();
    web::route().to(move || {
        let methods = Arc::clone(&methods);
        async move { Err::<HttpResponse, _>(Problem::method_not_allowed(&methods)) }
    })
}

/// Adds HEAD, which every path that answers GET also answers (`framing.rs`).
fn with_head(methods: &[&'static str]) -> Vec<&'static str> {
    let mut all = methods.to_vec();
    if let Some(get) = methods.iter().position(|method| *method == "GET") {
        all.insert(get + 1, "HEAD");
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use serde_json::json;

    use entity::upload_session::Status;

    use super::*;
    use crate::error::Attempt;
    use crate::storage;

    fn body(problem: impl Into<Problem>) -> Value {
        serde_json::from_slice(&problem.into().body(Some("req-1"))).unwrap()
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_its_own() {
        assert_eq!(
            body(Error::IllegalTransition { status: Status::Completed, attempt: Attempt::Complete }),
            json!({
                "type": "/problems/illegal-transition", "title": "The session's state does not allow this",
                "status": 409, "detail": "cannot complete a session that is COMPLETED", "instance": "req-1", "code": "illegal-transition",
                "upload_status": "COMPLETED",
            })
        );
        let invalid = body(Error::wrong(Field::ExpiresIn, Wrong::Seconds { most: 60 }));
        assert_eq!(
            invalid["errors"],
            json!([{"pointer": "?expires_in", "code": "out-of-range", "detail": "must be from 1 to 60 seconds"}])
        );
        let incomplete = body(Error::UploadIncomplete { missing_parts: (1..=1_500).collect(), uploaded_bytes: 7 });
        assert_eq!(incomplete["missing_parts"].as_array().unwrap().len(), 1_000);
        assert_eq!(incomplete["uploaded_bytes"], 7);
        assert_eq!(body(Problem::not_found().with("accepted", json!(0)))["accepted"], 0);
    }

    #[test]
    fn a_failure_says_when_to_come_back_and_nothing_of_its_cause() {
        let store =
            storage::Error { op: storage::Op::Head, kind: storage::ErrorKind::TimedOut, code: "secret-cause".into() };
        let problem = Problem::from(Error::Storage(store));
        let response = problem.error_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "5");
        let body_of_503 = body(problem);
        assert_eq!(body_of_503["retry_after"], 5);
        assert!(!body_of_503.to_string().contains("secret-cause"));

        let bug = Problem::internal(Some("secret-cause".into()));
        assert_eq!(bug.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body(bug).to_string().contains("secret-cause"));
    }

    #[test]
    fn headers_that_belong_to_a_status_go_with_it() {
        let response = Problem::method_not_allowed(&["GET", "PUT"]).error_response();
        assert_eq!(response.headers().get(header::ALLOW).unwrap(), "GET, HEAD, PUT");
        let response = Problem::method_not_allowed(&["POST"]).error_response();
        assert_eq!(response.headers().get(header::ALLOW).unwrap(), "POST");
        assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), CONTENT_TYPE);

        let challenge = |reason| {
            Problem::unauthenticated(reason).error_response().headers().get(header::WWW_AUTHENTICATE).unwrap().clone()
        };
        assert_eq!(challenge(None), r#"Bearer realm="quaymaster""#);
        assert_eq!(
            challenge(Some("the token has expired")),
            r#"Bearer realm="quaymaster", error="invalid_token", error_description="the token has expired""#
        );
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        for (wait_ms, secs) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (59_999, "60")] {
            let response = Problem::rate_limited(Duration::from_millis(wait_ms)).error_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), secs, "{wait_ms} ms");
        }
    }

    #[test]
    fn codes_are_unique() {
        let codes: BTreeSet<_> = KINDS.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), KINDS.len());
    }
}
