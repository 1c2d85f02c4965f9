//! JSON in: read within a limit and a time, then parsed with every wrong field named at once.
//!
//! Reading and parsing are two steps, so that a handler can check permissions between them: who may not do a thing is
//! not told what is wrong with how they asked.

use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Data};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use futures_util::StreamExt as _;
use serde::de::{DeserializeOwned, Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::problem::Problem;
use crate::engine::Engine;
use crate::error::{Error, FieldError};

/// JSON nested deeper than this is refused before it is parsed.
const DEPTH_MAX: usize = 32;
/// A body with more wrong fields than this is told about the first ones.
const ERRORS_MAX: usize = 100;

/// A body of at most `LIMIT` bytes that has been read and not yet parsed.
#[derive(Debug)]
pub(super) struct Body<T, const LIMIT: usize> {
    bytes: Bytes,
    shape: PhantomData<T>,
}

impl<T, const LIMIT: usize> FromRequest for Body<T, LIMIT> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let media_type = media_type(request);
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let secs = request.app_data::<Data<Engine>>().map_or(30, |engine| engine.settings.server.body_timeout_secs);
        let mut payload = payload.take();
        Box::pin(async move {
            media_type?;
            if declared.is_some_and(|length| length > LIMIT as u64) {
                return Err(Problem::TooLarge(LIMIT));
            }
            let read = async {
                let mut bytes = BytesMut::new();
                while let Some(chunk) = payload.next().await {
                    let chunk = chunk.map_err(|error| Problem::Malformed(format!("the body broke off: {error}")))?;
                    if bytes.len() + chunk.len() > LIMIT {
                        return Err(Problem::TooLarge(LIMIT));
                    }
                    bytes.extend_from_slice(&chunk);
                }
                Ok(bytes.freeze())
            };
            let read = tokio::time::timeout(Duration::from_secs(secs), read).await;
            let bytes = read.map_err(|_| Problem::Timeout)??;
            Ok(Self { bytes, shape: PhantomData })
        })
    }
}

fn media_type(request: &HttpRequest) -> Result<(), Problem> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::MediaType("send the body as it is, without Content-Encoding"));
    }
    let empty = request.headers().get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !request.headers().contains_key(header::TRANSFER_ENCODING);
    if empty && !request.headers().contains_key(header::CONTENT_TYPE) {
        return Ok(());
    }
    if request.content_type().trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::MediaType("the body must be application/json"))
}

impl<T: DeserializeOwned + Validate, const LIMIT: usize> Body<T, LIMIT> {
    /// # Errors
    /// 400 for what is not JSON, 422 with every wrong, missing and unknown field.
    pub(super) fn parse(&self) -> Result<T, Problem> {
        parse(&self.bytes)
    }
}

impl<T: DeserializeOwned + Validate + Default, const LIMIT: usize> Body<T, LIMIT> {
    /// As [`Body::parse`], where an empty body, and `null`, stand for `{}`.
    pub(super) fn parse_or_default(&self) -> Result<T, Problem> {
        let nothing = matches!(self.bytes.trim_ascii(), b"" | b"null");
        if nothing { Ok(T::default()) } else { self.parse() }
    }
}

fn parse<T: DeserializeOwned + Validate>(bytes: &[u8]) -> Result<T, Problem> {
    if depth(bytes) > DEPTH_MAX {
        return Err(Problem::Malformed(format!("the body is nested deeper than {DEPTH_MAX}")));
    }
    match serde_json::from_slice::<T>(bytes) {
        Ok(value) => validated(value, vec![]).map_err(Problem::Verb),
        Err(fast) => {
            let value = serde_json::from_slice::<Value>(bytes).map_err(|e| Problem::Malformed(e.to_string()))?;
            match check::<T>(value) {
                Err(error) => Err(Problem::Verb(error)),
                // Read leniently it is fine, so what was wrong is in the text itself: a member that occurs twice.
                Ok(_) => Err(Problem::Malformed(fast.to_string())),
            }
        }
    }
}

/// Reads a shape from a value, with every wrong field named at once.
///
/// serde stops at the first field that does not fit; so that one is noted and taken out, and the rest read again.
pub(super) fn check<T: DeserializeOwned + Validate>(mut value: Value) -> Result<T, Error> {
    let mut wrong: Vec<FieldError> = Vec::new();
    loop {
        match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(shape) => return validated(shape, wrong),
            Err(error) => {
                let (pointer, message) = (pointer(error.path()), error.inner().to_string());
                let unknown = message.starts_with("unknown field");
                if unknown {
                    let known = message.split_once(", ").map_or("", |(_, expected)| expected);
                    wrong.push(FieldError::new(&pointer, "unknown-field", format!("there is no such field; {known}")));
                } else {
                    let code =
                        if message.starts_with("invalid value: integer") { "out-of-range" } else { "wrong-type" };
                    wrong.push(FieldError::new(&pointer, code, message));
                }
                if wrong.len() >= ERRORS_MAX || !take_out(&mut value, &pointer, unknown) {
                    return Err(Error::Invalid(wrong));
                }
            }
        }
    }
}

/// Removes an unknown member, or nulls a wrong one; false where there is nothing to take out.
fn take_out(value: &mut Value, pointer: &str, remove: bool) -> bool {
    if !remove {
        return match value.pointer_mut(pointer) {
            None | Some(Value::Null) => false,
            Some(place) => {
                *place = Value::Null;
                !pointer.is_empty()
            }
        };
    }
    let Some((parent, name)) = pointer.rsplit_once('/') else { return false };
    let name = name.replace("~1", "/").replace("~0", "~");
    value.pointer_mut(parent).and_then(Value::as_object_mut).is_some_and(|object| object.remove(&name).is_some())
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            Segment::Enum { variant } => format!("/{}", escape(variant)),
            Segment::Unknown => "/?".to_owned(),
        })
        .collect()
}

/// RFC 6901, section 3.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn validated<T: Validate>(shape: T, mut wrong: Vec<FieldError>) -> Result<T, Error> {
    if let Err(errors) = shape.validate() {
        collect(&errors, "", &mut wrong);
    }
    if wrong.is_empty() {
        return Ok(shape);
    }
    wrong.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    Err(Error::Invalid(wrong))
}

fn collect(errors: &ValidationErrors, at: &str, wrong: &mut Vec<FieldError>) {
    for (name, kind) in errors.errors() {
        let pointer = format!("{at}/{}", escape(name));
        match kind {
            ValidationErrorsKind::Struct(errors) => collect(errors, &pointer, wrong),
            ValidationErrorsKind::List(items) => {
                for (index, errors) in items {
                    collect(errors, &format!("{pointer}/{index}"), wrong);
                }
            }
            ValidationErrorsKind::Field(errors) => {
                // What was taken out for its type is not missing too.
                if wrong.iter().any(|earlier| earlier.pointer == pointer) {
                    continue;
                }
                wrong.extend(errors.iter().map(|error| FieldError::new(&pointer, code(&error.code), said(error))));
            }
        }
    }
}

/// The codes of the contract; those of our own rules are written as they go out.
fn code(code: &str) -> &'static str {
    match code {
        "required" => "required",
        "range" | "length" | "out-of-range" => "out-of-range",
        "too-long" => "too-long",
        _ => "malformed",
    }
}

fn said(error: &validator::ValidationError) -> String {
    match (&error.message, error.code.as_ref()) {
        (Some(message), _) => message.to_string(),
        (None, "required") => "this field is needed".to_owned(),
        (None, _) => {
            let limit = |name: &str| error.params.get(name).map(|value| format!("{name} {value}"));
            let limits: Vec<_> = ["min", "max"].into_iter().filter_map(limit).collect();
            format!("not within its limits: {}", limits.join(", "))
        }
    }
}

/// A whole number, also written as `5.0`: to JSON (RFC 8259, section 6) and to a JSON Schema `integer` they are the same.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(Option::<Whole>::deserialize(deserializer)?.map(|whole| whole.0))
}

/// A list of [`whole`] numbers.
pub(super) fn wholes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<i64>>, D::Error> {
    let wholes = Option::<Vec<Whole>>::deserialize(deserializer)?;
    Ok(wholes.map(|wholes| wholes.into_iter().map(|whole| whole.0).collect()))
}

struct Whole(i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        // Beyond 2^53 a double does not know its own units.
        let exact = |float: &f64| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
        let whole = number.as_i64().or_else(|| number.as_f64().filter(exact).map(|float| float as i64));
        whole.map(Self).ok_or_else(|| match number.as_u64() {
            Some(large) => D::Error::invalid_value(Unexpected::Unsigned(large), &"i64"),
            None => D::Error::invalid_type(Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)), &"a whole number"),
        })
    }
}

/// How deep the brackets nest, without parsing: brackets in strings do not count.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
