//! Range requests (RFC 9110, section 14), as S3 answers them.
//!
//! S3 sends a single range. It ignores several ranges, another unit and a value that is not a range: the answer is the
//! whole object, with 200. `s3s` parses a single range only and refuses everything else with 400, after it has verified
//! the signature, which may cover the header. So requests whose header `s3s` would refuse take another route: their
//! header is rewritten into the form that `s3s` parses, or removed, and they go on to a second service, which verifies no
//! signature.

use async_trait::async_trait;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri, header};
use s3s::dto;
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::auth;
use crate::condition::is_strong_match;
use crate::rows::object::Object;

/// No object is longer than this.
const POSITION_MAX: u64 = i64::MAX as u64;

/// The route of requests whose Range header `s3s` does not parse.
pub struct Unread {
    /// Verifies no signature.
    pub unsigned: S3Service,
}

#[async_trait]
impl S3Route for Unread {
    fn is_match(&self, method: &Method, _: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        let mut values = headers.get_all(header::RANGE).iter();
        let Some(first) = values.next().filter(|_| matches!(*method, Method::GET | Method::HEAD)) else {
            return false;
        };
        values.next().is_some() || !first.to_str().is_ok_and(|text| dto::Range::parse(text).is_ok())
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        auth::check(request.credentials.as_ref(), &request.uri, &request.headers)
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let lost = |error| S3Error::with_source(S3ErrorCode::InternalError, error);
        let mut again = Request::new(request.input);
        *again.method_mut() = request.method;
        *again.uri_mut() = request.uri;
        *again.headers_mut() = request.headers;
        auth::without_signature(&mut again).map_err(|error| lost(error.into()))?;
        let meant = match again.headers_mut().entry(header::RANGE) {
            header::Entry::Occupied(entry) => {
                let mut values = entry.remove_entry_mult().1;
                let first = values.next();
                first.filter(|_| values.next().is_none()).and_then(|value| meant(value.to_str().ok()?))
            }
            header::Entry::Vacant(_) => None,
        };
        if let Some(meant) = meant
            && let Ok(value) = HeaderValue::from_str(&meant.to_header_string())
        {
            again.headers_mut().insert(header::RANGE, value);
        }
        let response = self.unsigned.call(again).await.map_err(|error| lost(error.into()))?;
        let (parts, body) = response.into_parts();
        let mut answer = S3Response::with_status(body, parts.status);
        (answer.headers, answer.extensions) = (parts.headers, parts.extensions);
        Ok(answer)
    }
}

/// Parses the single range that a header asks for; `None` if S3 ignores the header.
fn meant(header: &str) -> Option<dto::Range> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // A list may have empty elements (RFC 9110, section 5.6.1).
    let mut ranges = set.split(',').map(str::trim).filter(|range| !range.is_empty());
    let range = ranges.next().filter(|_| ranges.next().is_none())?;
    match range.split_once('-')? {
        ("", length) => Some(dto::Range::Suffix { length: position(length)? }),
        (first, "") => Some(dto::Range::Int { first: position(first)?, last: None }),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(dto::Range::Int { first, last: Some(last) })
        }
    }
}

/// Parses digits; `None` for any other text. A number that is too large is clamped: it is beyond the end of every object.
fn position(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().unwrap_or(POSITION_MAX).min(POSITION_MAX))
}

/// Returns the bytes that `range` selects in an object of `size` bytes.
///
/// # Errors
/// InvalidRange (416, with the size in Content-Range). An empty object satisfies no range; the check of `s3s` misses this
/// for a suffix.
pub fn resolve(range: dto::Range, size: u64) -> S3Result<std::ops::Range<u64>> {
    match range.check(size) {
        Ok(range) if range.start < range.end => Ok(range),
        _ => {
            let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            if let Ok(unsatisfied) = HeaderValue::from_str(&format!("bytes */{size}")) {
                headers.insert(header::CONTENT_RANGE, unsatisfied);
            }
            error.set_headers(headers);
            Err(error)
        }
    }
}

pub fn content_range(range: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// Whether the request's If-Range allows its Range (RFC 9110, section 13.1.5): a resumed download must not get the rest of
/// another version.
pub fn counts(request: &HeaderMap, object: &Object) -> bool {
    request.get(header::IF_RANGE).is_none_or(|validator| is_strong_match(validator, object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_all_else_ignored() {
        for (header, range) in [
            ("bytes=0-4", Some("bytes=0-4")),
            ("Bytes = 0-4", Some("bytes=0-4")),
            ("bytes=, 0-4 ,", Some("bytes=0-4")),
            ("bytes=5-", Some("bytes=5-")),
            ("bytes=-5", Some("bytes=-5")),
            ("bytes=0-99999999999999999999", Some("bytes=0-9223372036854775807")),
            ("bytes=99999999999999999999-", Some("bytes=9223372036854775807-")),
            ("bytes=-99999999999999999999", Some("bytes=-9223372036854775807")),
            ("bytes=0-1,3-4", None),
            ("bytes=4-0", None),
            ("bytes=0-4-5", None),
            ("bytes=+1-4", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes", None),
            ("lines=1-2", None),
            ("", None),
        ] {
            assert_eq!(meant(header).map(|range| range.to_header_string()).as_deref(), range, "{header}");
            if let Some(range) = range {
                assert!(dto::Range::parse(range).is_ok(), "s3s does not read {range}");
            }
        }
    }

    #[test]
    fn a_range_lies_inside_its_object() {
        let resolved = |text, size| resolve(dto::Range::parse(text).expect("a range"), size).ok();
        assert_eq!(resolved("bytes=0-4", 10), Some(0..5));
        assert_eq!(resolved("bytes=8-20", 10), Some(8..10));
        assert_eq!(resolved("bytes=-20", 10), Some(0..10));
        assert_eq!(resolved("bytes=10-", 10), None);
        assert_eq!(resolved("bytes=-0", 10), None);
        assert_eq!(resolved("bytes=-1", 0), None);
        assert_eq!(resolved("bytes=9223372036854775807-", 10), None);
    }
}
