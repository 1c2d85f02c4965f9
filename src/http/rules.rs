//! Rules for fields that several requests share, for `#[validate(custom(function = "rules::file_name"))]`.
//!
//! Lengths count Unicode scalars, so that a name in emoji or Arabic may be as long as one in Latin letters.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value};
use validator::ValidationError;

use crate::session::state;
use crate::yielding::give_way_in_small_steps;
use crate::{storage, tenant};

/// The longest name of a file, in Unicode scalars.
pub const FILE_NAME_CHARS_MAX: usize = 255;
/// The longest reference, in Unicode scalars.
pub const REFERENCE_CHARS_MAX: usize = 128;
/// The longest media type, in ASCII characters.
pub const MEDIA_TYPE_CHARS_MAX: usize = 128;
/// The largest metadata, as compact JSON.
pub const METADATA_BYTES_MAX: usize = 4096;

type Verdict = Result<(), ValidationError>;

fn broken(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Verdict {
    Err(ValidationError::new(code).with_message(detail.into()))
}

/// No character of Unicode's category Cc: PostgreSQL cannot store U+0000, and the others can forge lines in logs.
pub fn no_control(text: &str) -> Verdict {
    if text.chars().any(char::is_control) {
        return broken("invalid-character", "must not contain control characters");
    }
    Ok(())
}

fn at_most(chars_max: usize, text: &str) -> Verdict {
    // Bytes are at least as many as characters: the common case is decided without counting.
    if text.len() > chars_max && text.chars().nth(chars_max).is_some() {
        return broken("too-long", format!("must be at most {chars_max} characters"));
    }
    Ok(())
}

/// 1 to 255 characters, none of them a control character, `/` or `\`. It is data for display, never a path.
pub fn file_name(name: &str) -> Verdict {
    if name.is_empty() {
        return broken("too-short", "must not be empty");
    }
    at_most(FILE_NAME_CHARS_MAX, name)?;
    no_control(name)?;
    if name.contains(['/', '\\']) {
        return broken("invalid-character", "must not contain / or \\");
    }
    Ok(())
}

/// A client's own reference: 1 to 128 characters, none of them a control character.
pub fn reference(text: &str) -> Verdict {
    if text.is_empty() {
        return broken("too-short", "must not be empty; leave it out instead");
    }
    at_most(REFERENCE_CHARS_MAX, text)?;
    no_control(text)
}

/// Names of states, separated by commas.
pub fn states(text: &str) -> Verdict {
    if text.split(',').all(|name| state::named(name).is_some()) {
        return Ok(());
    }
    broken("invalid-format", "must be names of states, separated by commas")
}

/// The name of a tenant or a brand: 1 to 63 characters of `a-z`, `0-9` and `-`, which must be neither first nor last.
pub fn slug(text: &str) -> Verdict {
    if tenant::is_slug(text) {
        Ok(())
    } else {
        broken("invalid-format", "must be 1 to 63 of a-z, 0-9 and inner hyphens")
    }
}

/// A name that S3 allows for a bucket.
pub fn bucket(name: &str) -> Verdict {
    if storage::is_bucket_name(name) { Ok(()) } else { broken("invalid-format", storage::BUCKET_NAMES) }
}

/// `Idempotency-Key`: 1 to 128 printable ASCII characters.
pub fn idempotency_key(text: &str) -> Verdict {
    reference(text)?;
    if !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return broken("invalid-character", "must be printable ASCII");
    }
    Ok(())
}

/// 64 hex digits.
pub fn sha256_hex(text: &str) -> Verdict {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return broken("invalid-format", "must be 64 hex digits");
    }
    Ok(())
}

/// `type/subtype` with parameters (RFC 9110, section 8.3.1), up to 128 ASCII characters; or empty, which browsers send for a
/// file whose type they do not know. Tabs, which the grammar allows between parameters, are refused, because the text is
/// signed into URLs.
pub fn media_type(text: &str) -> Verdict {
    if !text.is_ascii() {
        return broken("invalid-character", "must be ASCII");
    }
    if text.len() > MEDIA_TYPE_CHARS_MAX {
        return broken("too-long", format!("must be at most {MEDIA_TYPE_CHARS_MAX} characters"));
    }
    if text.is_empty() || is_media_type(text) {
        return Ok(());
    }
    broken("invalid-format", "must be a media type such as image/png")
}

fn is_media_type(text: &str) -> bool {
    let Some(rest) = token(text).and_then(|rest| rest.strip_prefix('/')).and_then(token) else {
        return false;
    };
    let mut rest = rest.trim_start_matches(' ');
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(' ');
        let value = token(parameter).and_then(|rest| rest.strip_prefix('='));
        let after = match value {
            // `; ;` and a last `;` are empty parameters, which the grammar allows.
            None if parameter.is_empty() || parameter.starts_with(';') => Some(parameter),
            None => None,
            Some(value) => match value.strip_prefix('"') {
                Some(quoted) => quoted_string(quoted),
                None => token(value),
            },
        };
        let Some(after) = after else { return false };
        rest = after.trim_start_matches(' ');
    }
    rest.is_empty() && !text.ends_with(' ')
}

/// Returns the text after a token (RFC 9110, section 5.6.2).
fn token(text: &str) -> Option<&str> {
    let is_tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let rest = text.trim_start_matches(is_tchar);
    (rest.len() < text.len()).then_some(rest)
}

/// Returns the text after a quoted string (RFC 9110, section 5.6.4) whose first quote has been read.
fn quoted_string(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (place, c) in text.char_indices() {
        match c {
            _ if c.is_control() => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text.get(place + 1..),
            _ => {}
        }
    }
    None
}

/// A client's own object: up to 4 KiB as compact JSON, without U+0000.
pub fn metadata(metadata: &Object) -> Verdict {
    if metadata.values().any(has_nul) || metadata.keys().any(|key| key.contains('\0')) {
        return broken("invalid-character", "must not contain U+0000");
    }
    let mut size = Size(0);
    if serde_json::to_writer(&mut size, metadata).is_err() || size.0 > METADATA_BYTES_MAX {
        return broken("too-long", format!("must be at most {METADATA_BYTES_MAX} bytes as JSON"));
    }
    Ok(())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Counts bytes instead of keeping them.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client's own JSON object. Reading one refuses a name that occurs twice, at any depth, because parsers disagree about
/// which of the two counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub Map<String, Value>);

impl std::ops::Deref for Object {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Object, A::Error> {
                members(access).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Any JSON value in which no object has a name twice.
pub(super) struct Unambiguous(pub Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Unambiguous;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<Unambiguous, E> {
                Ok(Unambiguous(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Unambiguous, E> {
                Number::from_f64(value).map(|number| Unambiguous(number.into())).ok_or_else(|| E::custom("not finite"))
            }

            fn visit_str<E>(self, value: &str) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Unambiguous, A::Error> {
                let mut elements = Vec::new();
                while let Some(Unambiguous(element)) = access.next_element()? {
                    give_way_in_small_steps();
                    elements.push(element);
                }
                Ok(Unambiguous(elements.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Unambiguous, A::Error> {
                members(access).map(|map| Unambiguous(map.into()))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

fn members<'de, A: MapAccess<'de>>(mut access: A) -> Result<Map<String, Value>, A::Error> {
    let mut map = Map::new();
    while let Some((name, Unambiguous(value))) = access.next_entry::<String, _>()? {
        give_way_in_small_steps();
        if map.insert(name, value).is_some() {
            return Err(de::Error::custom("a name occurs twice in an object"));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn code(verdict: Verdict) -> Option<String> {
        verdict.err().map(|error| error.code.into_owned())
    }

    #[test]
    fn file_names_may_be_anything_that_people_write() {
        for name in ["reel.mov", "😀😀.png", "مرحبا.txt", "..", " a b ", &"é".repeat(255)] {
            assert_eq!(code(file_name(name)), None, "{name}");
        }
        assert_eq!(code(file_name("")).as_deref(), Some("too-short"));
        assert_eq!(code(file_name(&"😀".repeat(256))).as_deref(), Some("too-long"));
        for name in ["a/b", "a\\b", "a\0b", "a\nb", "a\u{7f}", "a\u{85}"] {
            assert_eq!(code(file_name(name)).as_deref(), Some("invalid-character"), "{name:?}");
        }
    }

    #[test]
    fn references_and_keys_are_short_lines() {
        assert_eq!(code(reference(&"ü".repeat(128))), None);
        assert_eq!(code(reference(&"ü".repeat(129))).as_deref(), Some("too-long"));
        assert_eq!(code(reference("a\tb")).as_deref(), Some("invalid-character"));
        assert_eq!(code(idempotency_key("a b~")), None);
        assert_eq!(code(idempotency_key("ü")).as_deref(), Some("invalid-character"));
    }

    #[test]
    fn media_types_follow_rfc_9110() {
        for text in [
            "image/png",
            "application/vnd.api+json",
            "text/plain;charset=utf-8",
            "text/plain; charset=\"utf\\\"8\" ; x=y",
            "text/plain;",
            "a/b;;c=d",
            "",
        ] {
            assert_eq!(code(media_type(text)), None, "{text}");
        }
        for text in [
            "image",
            "image/",
            "/png",
            "image/png ",
            "image /png",
            "text/plain;charset",
            "text/plain; a=\"b",
            "a/b;c= d",
            "a/b,c/d",
            "a/b\tc",
            "a/b;c=\"\u{1}\"",
        ] {
            assert_eq!(code(media_type(text)).as_deref(), Some("invalid-format"), "{text:?}");
        }
        assert_eq!(code(media_type("image/ünique")).as_deref(), Some("invalid-character"));
        assert_eq!(code(media_type(&format!("image/{}", "x".repeat(122)))), None);
        assert_eq!(code(media_type(&format!("image/{}", "x".repeat(123)))).as_deref(), Some("too-long"));
    }

    #[test]
    fn checksums_are_hex() {
        assert_eq!(code(sha256_hex(&"aF".repeat(32))), None);
        assert_eq!(code(sha256_hex(&"a".repeat(63))).as_deref(), Some("invalid-format"));
        assert_eq!(code(sha256_hex(&"g".repeat(64))).as_deref(), Some("invalid-format"));
    }

    #[test]
    fn metadata_is_small_and_free_of_nul() {
        let object = |value: Value| Object(value.as_object().unwrap().clone());
        assert_eq!(code(metadata(&object(json!({"a": [1, {"b": null}]})))), None);
        // {"a":"…"} has eight bytes beside the text.
        assert_eq!(code(metadata(&object(json!({"a": "x".repeat(4088)})))), None);
        assert_eq!(code(metadata(&object(json!({"a": "x".repeat(4089)})))).as_deref(), Some("too-long"));
        for nul in [json!({"a\0": 1}), json!({"a": "\0"}), json!({"a": [{"b\0": 1}]}), json!({"a": ["\0"]})] {
            assert_eq!(code(metadata(&object(nul))).as_deref(), Some("invalid-character"));
        }
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"b":[{"a":1,"\u0061":2}]}"#] {
            assert!(serde_json::from_str::<Object>(text).is_err(), "{text}");
        }
        let read: Object = serde_json::from_str(r#"{"a":{"a":[null,true,-1,1,1.5,"x"]}}"#).unwrap();
        assert_eq!(Value::from(read.0), json!({"a": {"a": [null, true, -1, 1, 1.5, "x"]}}));
    }
}
