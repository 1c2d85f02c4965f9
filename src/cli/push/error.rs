//! Why a file, or a request for it, failed; and which errors are worth a retry.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::report::plain;
use crate::error::with_causes;

/// The problem document of a refused request, as far as this client reads it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    pub title: String,
    pub detail: Option<String>,
    /// The request's id, which the server's log contains.
    pub instance: Option<String>,
    pub upload_status: Option<String>,
    pub errors: Vec<FieldProblem>,
    /// Seconds to wait, if the server names a time.
    pub retry_after: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FieldProblem {
    pub pointer: String,
    pub code: String,
    pub detail: String,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Server(Box<Problem>),
    /// The store's own answer to a presigned PUT.
    #[error("the store answered {status}{}", after_colon(.said))]
    Store { status: u16, said: String, retry_after: Option<u64> },
    /// No answer, or only a part of one. It is unknown what the other side has done.
    #[error("{0}")]
    Network(String),
    #[error("nothing moved for {} seconds", .0.as_secs())]
    Stalled(Duration),
    #[error("given up after {tries} tries: {last}")]
    GivenUp { tries: u32, last: Box<Error> },
    /// The answer does not follow the native API: another program answers at this address, or another version.
    #[error("the server's answer is not as expected: {0}")]
    UnexpectedAnswer(String),
    /// The session takes no more bytes; a new session can.
    #[error("the upload session {0}")]
    SessionOver(String),
    /// The session was completed by others meanwhile: there is an asset.
    #[error("the upload session is completed already")]
    Completed,
    #[error("cannot read the file: {0}")]
    Unreadable(String),
    #[error("the file changed while it was being sent; push it again when it no longer changes")]
    Changed,
    #[error("{0}")]
    Unacceptable(String),
    #[error("verification failed: {0}")]
    Corrupt(String),
    #[error("stopped before it was done; the same command continues from here")]
    Interrupted,
}

/// Whether the same request may succeed a little later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    No,
    Soon,
    /// The other side named a time.
    After(Duration),
}

impl Problem {
    /// Whether a required field is missing: one whose pointer ends with `pointer_end`.
    pub fn lacks(&self, pointer_end: &str) -> bool {
        self.errors.iter().any(|error| error.code == "required" && error.pointer.ends_with(pointer_end))
    }
}

impl Error {
    pub fn again(&self) -> Again {
        match self {
            Error::Server(p) => again(p.status, p.retry_after),
            Error::Store { status, retry_after, .. } => again(*status, *retry_after),
            Error::Network(_) | Error::Stalled(_) => Again::Soon,
            Error::GivenUp { .. }
            | Error::UnexpectedAnswer(_)
            | Error::SessionOver(_)
            | Error::Completed
            | Error::Unreadable(_)
            | Error::Changed
            | Error::Unacceptable(_)
            | Error::Corrupt(_)
            | Error::Interrupted => Again::No,
        }
    }

    /// Whether the token is missing, wrong, expired, or does not permit the request.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Server(p) if p.status == 401 || p.status == 403)
    }

    /// Returns the server's code, or a code of this client for errors that the server cannot know of.
    pub fn code(&self) -> &str {
        match self {
            Error::Server(p) => &p.code,
            Error::Store { .. } => "store-refused",
            Error::Network(_) | Error::Stalled(_) => "unreachable",
            Error::GivenUp { last, .. } => last.code(),
            Error::UnexpectedAnswer(_) => "unexpected-answer",
            Error::SessionOver(_) | Error::Completed => "session-over",
            Error::Unreadable(_) => "unreadable",
            Error::Changed => "file-changed",
            Error::Unacceptable(_) => "unacceptable",
            Error::Corrupt(_) => "verification-failed",
            Error::Interrupted => "interrupted",
        }
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        let mut shown = json!({ "code": self.code(), "detail": self.to_string() });
        let inner = if let Error::GivenUp { last, .. } = self { last } else { self };
        if let Error::Server(p) = inner {
            shown["status"] = json!(p.status);
            shown["title"] = json!(p.title);
            shown["instance"] = json!(p.instance);
            shown["errors"] =
                p.errors.iter().map(|e| json!({ "pointer": e.pointer, "code": e.code, "detail": e.detail })).collect();
        }
        shown
    }
}

/// 5xx, 429 and 408 are temporary; any other refusal is final.
fn again(status: u16, retry_after: Option<u64>) -> Again {
    match (status, retry_after) {
        (500..=599 | 429 | 408, Some(secs)) => Again::After(Duration::from_secs(secs)),
        (500..=599 | 429 | 408, None) => Again::Soon,
        _ => Again::No,
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {}", plain(said)) }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", plain(&self.title), self.status)?;
        if let Some(detail) = self.detail.as_deref().filter(|d| !d.eq_ignore_ascii_case(&self.title)) {
            write!(f, ": {}", plain(detail))?;
        }
        for e in &self.errors {
            write!(f, "\n    {}: {}", plain(&e.pointer), plain(if e.detail.is_empty() { &e.code } else { &e.detail }))?;
        }
        if let Some(instance) = &self.instance {
            write!(f, " [request {}]", plain(instance))?;
        }
        Ok(())
    }
}

/// Describes a failed exchange with its causes, but without its URL: a presigned URL is a credential.
impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        Error::Network(with_causes(&error.without_url()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn server(status: u16, retry_after: Option<u64>) -> Error {
        Error::Server(Box::new(Problem { status, retry_after, ..Problem::default() }))
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(server(status, None).again(), Again::Soon, "{status}");
            assert_eq!(server(status, Some(7)).again(), Again::After(Duration::from_secs(7)), "{status}");
        }
        for status in [400, 401, 403, 404, 409, 413, 415, 422] {
            assert_eq!(server(status, Some(7)).again(), Again::No, "{status}");
            let store = Error::Store { status, said: String::new(), retry_after: None };
            assert_eq!(store.again(), Again::No, "{status}");
        }
        assert_eq!(Error::Network("reset".into()).again(), Again::Soon);
        let last = Box::new(server(503, None));
        assert_eq!(Error::GivenUp { tries: 9, last }.again(), Again::No, "nested retries would multiply");
    }

    #[test]
    fn a_problem_reads_as_title_detail_pointers_and_request() {
        let problem: Problem = serde_json::from_str(
            r#"{"type": "/problems/validation-failed", "title": "The input is not valid", "status": 422,
                "code": "validation-failed", "detail": "1 field is wrong", "instance": "0199-a",
                "errors": [{"pointer": "/brand_id", "code": "required", "detail": "name a brand"}]}"#,
        )
        .unwrap();
        let error = Error::Server(Box::new(problem));
        assert_eq!(
            error.to_string(),
            "The input is not valid (422): 1 field is wrong\n    /brand_id: name a brand [request 0199-a]"
        );
        assert_eq!(error.to_json()["errors"][0]["code"], "required");
    }
}
