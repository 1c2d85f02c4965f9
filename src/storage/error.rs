//! The failures of a store, sorted by what a caller can do about them.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::settings::Provider;

/// The S3 call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    OpenMultipart,
    ListUploads,
    ListParts,
    CompleteMultipart,
    AbortMultipart,
    Head,
    Get,
    /// Of a small object.
    Put,
    /// Of an object, or of a byte range of one as a part.
    Copy,
    ListObjects,
    Delete,
    Ready,
    CreateBucket,
    SetCors,
    Credentials,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such upload or object. For most callers this is an answer, not a failure.
    NotFound,
    /// The object is not the one that the request was conditional on.
    Changed,
    /// The credential or a policy does not allow it.
    Refused,
    /// The store asked for fewer requests.
    Throttled,
    /// 5xx, no connection, a lost connection, or an invalid answer: the effect may have happened.
    Unavailable,
    /// No answer in time: the effect may have happened.
    TimedOut,
    /// The store did not accept the request as it was (4xx).
    Invalid,
    /// The store's answers contradict each other: one of them is stale or wrong.
    Unclear,
}

/// A failed S3 call. Its text names the operation, the kind and the store's own error code; never a URL, a credential
/// or a header.
#[derive(Clone, Debug)]
pub struct Error {
    pub op: Op,
    pub kind: ErrorKind,
    /// The store's error code, such as `InvalidPart`, or a short cause.
    pub code: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} failed: {:?} ({})", self.op, self.kind, self.code)
    }
}

impl StdError for Error {}

impl Error {
    /// The error for an answer that no S3 store may give.
    pub(super) fn nonsense(op: Op, what: &str) -> Self {
        Self { op, kind: ErrorKind::Unavailable, code: what.to_owned() }
    }

    /// The error for answers that contradict each other.
    pub(crate) fn unclear(op: Op, what: impl Into<String>) -> Self {
        Self { op, kind: ErrorKind::Unclear, code: what.into() }
    }

    pub(super) fn from_sdk<E: ProvideErrorMetadata + StdError + 'static>(
        op: Op,
        error: SdkError<E, HttpResponse>,
    ) -> Self {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = answer.err().code();
                Self { op, kind: sort(op, status, code), code: code.map_or_else(|| status.to_string(), str::to_owned) }
            }
            SdkError::TimeoutError(_) => Self { op, kind: ErrorKind::TimedOut, code: "no answer in time".to_owned() },
            SdkError::DispatchFailure(failure) => {
                let kind = if failure.is_timeout() { ErrorKind::TimedOut } else { ErrorKind::Unavailable };
                Self { op, kind, code: failure.as_connector_error().map_or_else(String::new, |e| root(e)) }
            }
            SdkError::ResponseError(answer) => match answer.raw().status().as_u16() {
                200..300 => Self::nonsense(op, "the answer broke off or could not be read"),
                status => Self { op, kind: sort(op, status, None), code: status.to_string() },
            },
            other @ (SdkError::ConstructionFailure(_) | _) => Self { op, kind: ErrorKind::Invalid, code: root(&other) },
        }
    }

    pub(super) fn from_credentials(error: &CredentialsError) -> Self {
        let kind = match error {
            CredentialsError::ProviderTimedOut(_) => ErrorKind::TimedOut,
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => ErrorKind::Refused,
            CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_) | _ => ErrorKind::Unavailable,
        };
        Self { op: Op::Credentials, kind, code: root(error) }
    }
}

/// Sorts an answer by its error code, or by its status if the code says nothing.
///
/// Only a code leads to `NotFound` (except for HEAD, whose answer has no body): a 404 of a proxy on the way must not count
/// as a missing upload. A HEAD's 403 stays `Refused`, although AWS answers so for a missing key if the credential may not
/// list: a policy's refusal must not make an object count as missing.
fn sort(op: Op, status: u16, code: Option<&str>) -> ErrorKind {
    match (code.unwrap_or_default(), status) {
        ("NoSuchUpload" | "NoSuchKey", _) => ErrorKind::NotFound,
        (_, 404) if op == Op::Head => ErrorKind::NotFound,
        ("PreconditionFailed", _) | (_, 412) => ErrorKind::Changed,
        ("SlowDown" | "Throttling" | "ThrottlingException" | "TooManyRequests" | "RequestLimitExceeded", _) => {
            ErrorKind::Throttled
        }
        ("RequestTimeout", _) => ErrorKind::TimedOut,
        // CompleteMultipartUpload may send this with a status of 200, after the store has kept the connection busy.
        ("InternalError" | "ServiceUnavailable" | "OperationAborted", _) => ErrorKind::Unavailable,
        ("ExpiredToken" | "InvalidToken", _) => ErrorKind::Refused,
        (_, 429) => ErrorKind::Throttled,
        (_, 401 | 403) => ErrorKind::Refused,
        (_, 408) => ErrorKind::TimedOut,
        (_, 501) => ErrorKind::Invalid,
        (_, 500..) => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    }
}

/// Returns the innermost cause: the outer ones only say that something inside failed.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Why no client can be created: a setting is missing, or settings contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("storage.bucket is not set")]
    BucketMissing,
    #[error("storage.region is not set, and neither the provider nor the AWS environment names one")]
    RegionMissing,
    #[error("storage.endpoint is not set, and the provider {0:?} has no default")]
    EndpointMissing(Provider),
    #[error("{setting} is not a valid endpoint: {reason}")]
    Endpoint { setting: &'static str, reason: String },
    #[error("storage.access_key_id and storage.secret_access_key must be set together: one of them is not set")]
    HalfACredential,
    #[error("storage.{setting}: {reason}")]
    Limit { setting: &'static str, reason: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_code_and_then_by_status() {
        for (op, status, code, kind) in [
            (Op::ListParts, 404, Some("NoSuchUpload"), ErrorKind::NotFound),
            (Op::Delete, 404, Some("NoSuchKey"), ErrorKind::NotFound),
            (Op::Head, 404, None, ErrorKind::NotFound),
            (Op::Head, 404, Some("NotFound"), ErrorKind::NotFound),
            (Op::Head, 403, None, ErrorKind::Refused),
            (Op::ListParts, 404, None, ErrorKind::Invalid),
            (Op::Ready, 404, Some("NotFound"), ErrorKind::Invalid),
            (Op::ListParts, 404, Some("NoSuchBucket"), ErrorKind::Invalid),
            (Op::CompleteMultipart, 400, Some("InvalidPart"), ErrorKind::Invalid),
            (Op::CompleteMultipart, 400, Some("EntityTooSmall"), ErrorKind::Invalid),
            (Op::CompleteMultipart, 200, Some("InternalError"), ErrorKind::Unavailable),
            (Op::CompleteMultipart, 409, Some("OperationAborted"), ErrorKind::Unavailable),
            (Op::Copy, 404, Some("NoSuchKey"), ErrorKind::NotFound),
            (Op::Copy, 412, Some("PreconditionFailed"), ErrorKind::Changed),
            (Op::Put, 412, None, ErrorKind::Changed),
            (Op::Delete, 403, Some("AccessDenied"), ErrorKind::Refused),
            (Op::Delete, 403, Some("RequestTimeTooSkewed"), ErrorKind::Refused),
            (Op::Delete, 400, Some("ExpiredToken"), ErrorKind::Refused),
            (Op::Delete, 401, None, ErrorKind::Refused),
            (Op::Delete, 503, Some("SlowDown"), ErrorKind::Throttled),
            (Op::Delete, 429, None, ErrorKind::Throttled),
            (Op::Delete, 503, None, ErrorKind::Unavailable),
            (Op::Delete, 500, None, ErrorKind::Unavailable),
            (Op::Delete, 502, Some("BadGateway"), ErrorKind::Unavailable),
            (Op::Delete, 501, Some("NotImplemented"), ErrorKind::Invalid),
            (Op::Delete, 400, Some("RequestTimeout"), ErrorKind::TimedOut),
            (Op::Delete, 301, Some("PermanentRedirect"), ErrorKind::Invalid),
        ] {
            assert_eq!(sort(op, status, code), kind, "{op:?} {status} {code:?}");
        }
    }
}
