//! Conditional requests (RFC 9110, section 13), as S3 supports them.

use http::{HeaderMap, HeaderValue, header};
use s3s::dto::{ETag, ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3Result, s3_error};

use crate::headers::seconds;
use crate::rows::now_ms;
use crate::rows::object::Object;

/// For If-Match (RFC 9110, section 13.1.1): a weak ETag does not identify exact bytes.
fn matches_strongly(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.as_strong() == Some(etag),
    }
}

/// For If-None-Match (section 13.1.2).
fn matches_weakly(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == etag,
    }
}

/// A write's condition on the object that it replaces. Checked before the body is read, and again inside the
/// transaction that commits.
#[derive(Clone)]
pub enum WriteCondition {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`
    Is(ETagCondition),
}

impl WriteCondition {
    /// # Errors
    /// NotImplemented for conditions that S3 does not support either: an ETag in If-None-Match, or both headers at once.
    pub fn parse(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> S3Result<Self> {
        match (if_match, if_none_match) {
            (None, None) => Ok(Self::None),
            (None, Some(ETagCondition::Any)) => Ok(Self::Absent),
            (Some(etag), None) => Ok(Self::Is(etag)),
            _ => Err(s3_error!(NotImplemented, "If-None-Match must be * and cannot be combined with If-Match.")),
        }
    }

    /// Parses the conditions from the headers, for a call whose conditions `s3s` does not parse.
    ///
    /// # Errors
    /// As [`Self::parse`]; InvalidArgument for a value that is not an ETag.
    pub fn from_headers(headers: &HeaderMap) -> S3Result<Self> {
        let read = |name| match headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().parse())
        {
            Some(Err(_)) => Err(s3_error!(InvalidArgument, "If-Match and If-None-Match must be an ETag or *.")),
            Some(Ok(condition)) => Ok(Some(condition)),
            None => Ok(None),
        };
        Self::parse(read(header::IF_MATCH)?, read(header::IF_NONE_MATCH)?)
    }

    /// # Errors
    /// PreconditionFailed, or NoSuchKey if If-Match is given and there is no object.
    pub fn check(&self, existing: Option<&Object>) -> S3Result<()> {
        match (self, existing) {
            (Self::None, _) | (Self::Absent, None) => Ok(()),
            (Self::Is(_), None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (Self::Is(wanted), Some(object)) if matches_strongly(wanted, &object.etag) => Ok(()),
            _ => Err(precondition_failed()),
        }
    }
}

fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// The conditions of a read on its object, or of a copy on its source.
#[derive(Default)]
pub struct ReadConditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

enum Outcome {
    Holds,
    NotModified,
    Failed,
}

impl ReadConditions {
    /// Evaluates the conditions in the order of RFC 9110, section 13.2.2: an ETag takes precedence over a date.
    fn outcome(&self, object: &Object) -> Outcome {
        let modified = object.modified_ms / 1000;
        let kept = match (&self.if_match, &self.if_unmodified_since) {
            (Some(etag), _) => matches_strongly(etag, &object.etag),
            (None, Some(date)) => modified <= seconds(date.clone()),
            (None, None) => true,
        };
        let changed = match (&self.if_none_match, &self.if_modified_since) {
            (Some(etag), _) => !matches_weakly(etag, &object.etag),
            (None, Some(date)) => modified > seconds(date.clone()),
            (None, None) => true,
        };
        match (kept, changed) {
            (false, _) => Outcome::Failed,
            (true, false) => Outcome::NotModified,
            (true, true) => Outcome::Holds,
        }
    }

    /// # Errors
    /// PreconditionFailed (412) or NotModified (304, with the ETag, as caches need it).
    pub fn check_read(&self, object: &Object) -> S3Result<()> {
        match self.outcome(object) {
            Outcome::Holds => Ok(()),
            Outcome::Failed => Err(precondition_failed()),
            Outcome::NotModified => {
                let mut error = s3_error!(NotModified);
                let mut headers = HeaderMap::new();
                if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", object.etag)) {
                    headers.insert(header::ETAG, etag);
                }
                error.set_headers(headers);
                Err(error)
            }
        }
    }

    /// # Errors
    /// PreconditionFailed, also in place of NotModified: a copy has no 304.
    pub fn check_copy(&self, object: &Object) -> S3Result<()> {
        match self.outcome(object) {
            Outcome::Holds => Ok(()),
            Outcome::NotModified | Outcome::Failed => Err(precondition_failed()),
        }
    }
}

/// Whether a validator (an ETag or a date) identifies exactly this version (RFC 9110, sections 8.8.2.2 and 8.8.3.2).
pub fn is_strong_match(validator: &HeaderValue, object: &Object) -> bool {
    let Ok(text) = validator.to_str() else { return false };
    if let Ok(date) = Timestamp::parse(TimestampFormat::HttpDate, text) {
        // A date has whole seconds: it identifies one version only after its second is over.
        let modified = object.modified_ms / 1000;
        return seconds(date) == modified && now_ms() / 1000 > modified;
    }
    matches!(text.parse(), Ok(ETag::Strong(etag)) if etag == object.etag)
}

pub fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}
