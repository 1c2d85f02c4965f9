//! What an error means on the wire, written once (RFC 9457).

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::views::StatusView;
use crate::error::{Error, FieldError};

/// What a handler answers.
pub(super) type Answer = Result<HttpResponse, Problem>;

/// How long a client waits before it asks a store or database again that was away, in seconds.
const RETRY_AFTER_SECS: u32 = 2;

/// A field of the request and what is wrong with it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FieldProblem {
    /// A JSON pointer into the body, `?name` for a query parameter, or a header's name.
    pointer: String,
    /// For programs: `required`, `out-of-range`, …
    code: &'static str,
    detail: String,
}

/// `application/problem+json`, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// `/problems/{code}`.
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    /// The request's id.
    instance: String,
    code: &'static str,
    /// The state that refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    upload_status: Option<StatusView>,
    /// Every field that is wrong, all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: Option<Vec<FieldProblem>>,
    /// Up to the first 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    missing_parts: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    uploaded_bytes: Option<u64>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after: Option<u32>,
}

/// A request that was not done, by the verb or by the door.
#[derive(Debug)]
pub enum Problem {
    Verb(Error),
    Malformed(String),
    Unauthenticated(String),
    NotFound,
    /// With the methods that the path takes.
    MethodNotAllowed(&'static str),
    Timeout,
    TooLarge(usize),
    MediaType(&'static str),
    Internal,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Verb(error)
    }
}

struct Row {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
}

const fn row(status: StatusCode, code: &'static str, title: &'static str) -> Row {
    Row { status, code, title }
}

impl Problem {
    fn row(&self) -> Row {
        use StatusCode as S;
        match self {
            Self::Malformed(_) => row(S::BAD_REQUEST, "malformed-body", "The body is not JSON"),
            Self::Unauthenticated(_) => row(S::UNAUTHORIZED, "unauthenticated", "A valid token is needed"),
            Self::NotFound => row(S::NOT_FOUND, "not-found", "There is no such thing here"),
            Self::MethodNotAllowed(_) => row(S::METHOD_NOT_ALLOWED, "method-not-allowed", "Not with this method"),
            Self::Timeout => row(S::REQUEST_TIMEOUT, "request-timeout", "The request took too long to arrive"),
            Self::TooLarge(_) => row(S::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::MediaType(_) => {
                row(S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is not application/json")
            }
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here"),
            Self::Verb(error) => match error {
                Error::NotFound => row(S::NOT_FOUND, "not-found", "There is no such thing here"),
                Error::PermissionDenied(_) => row(S::FORBIDDEN, "permission-denied", "Not allowed"),
                Error::IllegalTransition { .. } => {
                    row(S::CONFLICT, "illegal-transition", "The session's state does not allow it")
                }
                Error::SessionExpired => row(S::CONFLICT, "session-expired", "The session has expired"),
                Error::UploadIncomplete { .. } => row(S::CONFLICT, "upload-incomplete", "Bytes are missing"),
                Error::PartsMismatch(_) => row(S::CONFLICT, "parts-mismatch", "The list and the store disagree"),
                Error::ReferenceConflict(_) => {
                    row(S::CONFLICT, "reference-conflict", "The reference is another file's")
                }
                Error::Invalid(_) => row(S::UNPROCESSABLE_ENTITY, "validation-failed", "The input is not valid"),
                Error::Storage(_) | Error::NoBucket(_) => {
                    row(S::SERVICE_UNAVAILABLE, "storage-unavailable", "The store is not available")
                }
                Error::DbUnavailable(_) => {
                    row(S::SERVICE_UNAVAILABLE, "database-unavailable", "The database is not available")
                }
                Error::Db(_) => row(S::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here"),
            },
        }
    }

    /// For the caller. Causes of our own stay in the log.
    fn detail(&self) -> String {
        match self {
            Self::Malformed(detail) | Self::Unauthenticated(detail) => detail.clone(),
            Self::NotFound => Error::NotFound.to_string(),
            Self::MethodNotAllowed(allow) => format!("this path takes {allow}"),
            Self::Timeout => "the request's body did not arrive in time".to_owned(),
            Self::TooLarge(most) => format!("at most {most} bytes are taken here"),
            Self::MediaType(detail) => (*detail).to_owned(),
            Self::Internal | Self::Verb(Error::Db(_)) => "the log has more under this request's id".to_owned(),
            Self::Verb(Error::Storage(_) | Error::NoBucket(_)) => {
                "nothing is half done: the same request can be sent again".to_owned()
            }
            Self::Verb(error) => error.to_string(),
        }
    }

    /// The document itself, for an answer that holds several.
    pub(super) fn body(&self, instance: String) -> ProblemBody {
        let row = self.row();
        let mut body = ProblemBody {
            kind: format!("/problems/{}", row.code),
            title: row.title,
            status: row.status.as_u16(),
            detail: self.detail(),
            instance,
            code: row.code,
            upload_status: None,
            errors: None,
            missing_parts: None,
            uploaded_bytes: None,
            retry_after: (row.status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECS),
        };
        match self {
            Self::Verb(Error::IllegalTransition { status, .. }) => body.upload_status = Some((*status).into()),
            Self::Verb(Error::Invalid(fields)) => body.errors = Some(fields.iter().map(field).collect()),
            Self::Verb(Error::UploadIncomplete { missing_parts, uploaded_bytes }) => {
                body.missing_parts = Some(missing_parts.clone());
                body.uploaded_bytes = Some(*uploaded_bytes);
            }
            _ => {}
        }
        body
    }
}

fn field(error: &FieldError) -> FieldProblem {
    FieldProblem { pointer: error.pointer.clone(), code: error.code, detail: error.detail.clone() }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.row().status
    }

    /// Only where no middleware could render it with the request's id.
    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.answer(String::new())
    }
}

impl Problem {
    /// The answer to the request with this id.
    pub(super) fn answer(&self, instance: String) -> HttpResponse {
        let body = self.body(instance);
        let mut answer = HttpResponse::build(self.status_code());
        answer.content_type("application/problem+json");
        if let Some(seconds) = body.retry_after {
            answer.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Self::MethodNotAllowed(allow) = self {
            answer.insert_header((header::ALLOW, *allow));
        }
        if matches!(self, Self::Unauthenticated(_)) {
            // RFC 6750, section 3.
            answer.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        answer.body(serde_json::to_string(&body).unwrap_or_default())
    }

    /// Why, for the log: what the answer does not say.
    pub(super) fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Verb(error) => Some(error),
            _ => None,
        }
    }
}

/// The id that the middleware gave this request.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

pub(super) fn request_id(request: &HttpRequest) -> String {
    use actix_web::HttpMessage as _;
    request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default()
}

/// A batch of which nothing was accepted: a problem with the batch's own members beside it.
pub(super) fn none_accepted(request: &HttpRequest, outage: Option<Problem>, batch: &impl Serialize) -> HttpResponse {
    let problem = outage.unwrap_or_else(|| Problem::Verb(Error::Invalid(vec![])));
    let answer = problem.answer(request_id(request));
    let mut document = json!(problem.body(request_id(request)));
    if let (Value::Object(document), Value::Object(members)) = (&mut document, json!(batch)) {
        document.extend(members);
    }
    answer.set_body(BoxBody::new(document.to_string()))
}

/// What an unknown path answers.
pub(super) async fn not_found() -> Answer {
    Err(Problem::NotFound)
}
