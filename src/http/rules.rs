//! What a text from outside may be. Lengths count Unicode scalars.

use std::borrow::Cow;

use serde_json::{Map, Value};
use validator::ValidationError;

fn refuse(code: &'static str, message: &'static str) -> ValidationError {
    ValidationError { code: Cow::Borrowed(code), message: Some(Cow::Borrowed(message)), params: Default::default() }
}

fn text(text: &str, most: usize) -> Result<(), ValidationError> {
    if text.is_empty() {
        return Err(refuse("malformed", "it is empty"));
    }
    if text.chars().count() > most {
        return Err(refuse("too-long", "it is too long"));
    }
    if text.chars().any(char::is_control) {
        return Err(refuse("malformed", "it has a control character"));
    }
    Ok(())
}

pub(super) fn file_name(name: &str) -> Result<(), ValidationError> {
    text(name, 255)?;
    if name.contains(['/', '\\']) {
        return Err(refuse("malformed", "it has a path separator"));
    }
    Ok(())
}

pub(super) fn reference(name: &str) -> Result<(), ValidationError> {
    text(name, 128)
}

pub(super) fn title(title: &str) -> Result<(), ValidationError> {
    text(title, 255)
}

pub(super) fn etag(etag: &str) -> Result<(), ValidationError> {
    text(etag, 256)
}

/// `type/subtype` of token characters, with parameters (RFC 9110, sections 8.3.1 and 5.6.2).
pub(super) fn media_type(name: &str) -> Result<(), ValidationError> {
    if name.len() > 128 {
        return Err(refuse("too-long", "it is too long"));
    }
    let parsed = name.is_ascii() && !name.bytes().any(|b| b.is_ascii_control()) && name.parse::<mime::Mime>().is_ok();
    if parsed { Ok(()) } else { Err(refuse("malformed", "it is no media type")) }
}

pub(super) fn sha256_hex(hex: &str) -> Result<(), ValidationError> {
    let fits = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if fits { Ok(()) } else { Err(refuse("malformed", "it is not 64 hex digits")) }
}

pub(super) fn metadata(members: &Map<String, Value>) -> Result<(), ValidationError> {
    let written = serde_json::to_string(members).map_err(|_| refuse("malformed", "it cannot be stored"))?;
    if written.len() > 4 << 10 {
        return Err(refuse("too-long", "it is larger than 4 KiB"));
    }
    // PostgreSQL stores no U+0000, and JSON writes it in one way only.
    if members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
        return Err(refuse("malformed", "it holds U+0000"));
    }
    Ok(())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
