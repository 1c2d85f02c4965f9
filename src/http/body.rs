//! Reads a request's JSON body in one step and parses it in another, so that permissions can be checked between the two.
//! Errors come in this order: 401, then 413 and 415, then 403, then 400 and 422.

use std::marker::PhantomData;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpRequest};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use mime::Mime;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;
use validator::Validate;

use super::caller::authenticate;
use super::door::Door;
use super::fields::{self, Budget, Form};
use super::in_flight::{Room, ShareOwner};
use super::problem::{self, FieldError, Problem};
use super::unambiguous::Unambiguous;
use crate::yielding::give_way;

const KIB: usize = 1 << 10;

/// The default limit of a body, in bytes.
pub const GENERAL: usize = 64 * KIB;
/// The limit for `complete` and for part URLs, which may name 10,000 parts.
pub const PARTS: usize = 2 * KIB * KIB;
/// The limit for a batch of 1,000 files or sessions.
pub const BATCH: usize = 8 * KIB * KIB;

const BROKEN_OFF: &str = "the body is incomplete, or its chunks are malformed";

/// How deep objects and lists may be nested.
const DEPTH_MAX: usize = 32;

/// The most objects and lists in one body. Each takes some hundred bytes of memory once it is parsed, but may take only
/// seven in the body: `{"":0}` and a comma.
const CONTAINERS_MAX: usize = 100_000;

/// The most commas between the values of one body. Each value takes 32 bytes of memory or more, but may take only two in
/// the body: `0,`.
const COMMAS_MAX: usize = 500_000;

/// Bytes between two calls of [`give_way`].
const STRETCH: usize = 4 * KIB;

/// The body's bytes, at most `LIMIT` of them, declared as JSON but not parsed yet.
pub struct Body<T, const LIMIT: usize = GENERAL> {
    bytes: Bytes,
    /// Held until the body is parsed.
    _room: Option<Room>,
    shape: PhantomData<fn() -> T>,
}

/// The body of a request that needs none: empty, or `{}`.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<T, const LIMIT: usize> Body<T, LIMIT> {
    /// In bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl<T: DeserializeOwned + Validate, const LIMIT: usize> Body<T, LIMIT> {
    /// # Errors
    /// `malformed-body` if it is not JSON, is nested too deeply, has too many values or has a name twice in an object;
    /// otherwise `validation-failed` with every invalid field.
    pub fn parse(self) -> Result<T, Problem> {
        parse(&self.bytes)
    }

    /// Parses the body and reports all errors at once: those of the body, of `beside` (input outside of the body), and of
    /// `more` (a rule that needs more than `T`). `budget` is that of the whole request.
    ///
    /// # Errors
    /// As [`Body::parse`].
    pub fn parse_with<U>(
        self,
        beside: Result<U, FieldError>,
        budget: &mut Budget,
        more: impl FnOnce(&T) -> Option<FieldError>,
    ) -> Result<(T, U), Problem> {
        match (fields::read(&document(&self.bytes)?, Form::Json, budget, more), beside) {
            (Ok(read), Ok(beside)) => Ok((read, beside)),
            (read, beside) => {
                let mut errors = read.err().unwrap_or_default();
                errors.extend(beside.err());
                Err(Problem::invalid(errors))
            }
        }
    }
}

impl<T, const LIMIT: usize> FromRequest for Body<T, LIMIT> {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, actix_web::Error>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let req = req.clone();
        let payload = payload.take();
        Box::pin(async move {
            // Extractors run concurrently. No body is read or given memory before its sender is authenticated.
            let identity = authenticate(&req).await?;
            let length = announced(&req, LIMIT)?;
            let mut room =
                Door::of(&req).bodies.reserve_for_body(ShareOwner::of(&identity), length.unwrap_or(LIMIT)).await?;
            let bytes = read(&req, payload, length, LIMIT).await?;
            if let Some(room) = &mut room {
                room.shrink(bytes.len());
            }
            Ok(Self { bytes, _room: room, shape: PhantomData })
        })
    }
}

/// Returns the length of the JSON body that is to come: 0 if there is none, `None` if only the body's end tells it.
fn announced(req: &HttpRequest, limit: usize) -> Result<Option<usize>, Problem> {
    let length = req.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length == Some(0) || (length.is_none() && !req.headers().contains_key(header::TRANSFER_ENCODING)) {
        return Ok(Some(0));
    }
    must_be_plain_json(req.headers())?;
    match length {
        Some(length) if length > limit => Err(Problem::body_too_large(limit)),
        length => Ok(length),
    }
}

async fn read(req: &HttpRequest, mut payload: Payload, length: Option<usize>, limit: usize) -> Result<Bytes, Problem> {
    if length == Some(0) {
        return Ok(Bytes::new());
    }
    let all = async {
        let mut bytes = BytesMut::with_capacity(length.unwrap_or(0));
        while let Some(chunk) = payload.next().await {
            // The connection broke, or the chunks were malformed. The client will hardly read the answer.
            let chunk = chunk.map_err(|_| Problem::malformed_body(BROKEN_OFF))?;
            if bytes.len() + chunk.len() > limit {
                return Err(Problem::body_too_large(limit));
            }
            bytes.extend_from_slice(&chunk);
        }
        if length.is_some_and(|length| length != bytes.len()) {
            return Err(Problem::malformed_body(BROKEN_OFF));
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(Door::of(req).body_timeout(), all)
        .await
        .unwrap_or_else(|_| Err(Problem::new(&problem::REQUEST_TIMEOUT, "the body did not arrive in time")))
}

fn must_be_plain_json(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text(header::CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE, "the body must not have a Content-Encoding"));
    }
    let essence = text(header::CONTENT_TYPE).and_then(|text| text.parse::<Mime>().ok());
    if essence.is_some_and(|media_type| media_type.essence_str() == mime::APPLICATION_JSON.as_ref()) {
        return Ok(());
    }
    Err(Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE, "the Content-Type must be application/json"))
}

/// Implements [`Body::parse`].
///
/// # Errors
/// As [`Body::parse`].
fn parse<T: DeserializeOwned + Validate>(bytes: &[u8]) -> Result<T, Problem> {
    parse_value(&document(bytes)?, &mut Budget::default(), |_| None).map_err(Problem::invalid)
}

/// Parses the JSON of a body. An empty body counts as an empty object.
///
/// # Errors
/// `malformed-body`, as [`Body::parse`].
fn document(bytes: &[u8]) -> Result<Value, Problem> {
    // RFC 8259, section 8.1: senders must not add a byte-order mark, and parsers may ignore it.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    must_be_shallow(bytes)?;
    // Not serde's derived parsing of the text itself: it accepts a list as a struct, and the last of two members.
    let Unambiguous(document) = serde_json::from_slice(bytes)
        .map_err(|error| Problem::malformed_body(format!("at line {}, column {}", error.line(), error.column())))?;
    Ok(document)
}

/// Parses a part of a document that was left unparsed, such as one file of a batch. Pointers are relative to that part.
/// `budget` is that of the whole request; `more` is a rule that needs more than `T`.
///
/// # Errors
/// Every invalid field, as far as the budget allows.
pub fn parse_value<T: DeserializeOwned + Validate>(
    value: &Value,
    budget: &mut Budget,
    more: impl FnOnce(&T) -> Option<FieldError>,
) -> Result<T, Vec<FieldError>> {
    fields::read(value, Form::Json, budget, more)
}

/// Counts brackets and commas outside of strings, before a parser sees them that recurses and takes memory for each.
fn must_be_shallow(bytes: &[u8]) -> Result<(), Problem> {
    let (mut depth, mut containers, mut commas) = (0_usize, 0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for (place, byte) in bytes.iter().enumerate() {
        if place.is_multiple_of(STRETCH) {
            give_way();
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                containers += 1;
                if depth > DEPTH_MAX {
                    return Err(Problem::malformed_body(format!("nested deeper than {DEPTH_MAX} levels")));
                }
                if containers > CONTAINERS_MAX {
                    return Err(Problem::malformed_body(format!("more than {CONTAINERS_MAX} objects and lists")));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            b',' if !in_string => {
                commas += 1;
                if commas > COMMAS_MAX {
                    return Err(Problem::malformed_body(format!("more than {COMMAS_MAX} values")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
