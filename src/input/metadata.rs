use std::io;

use serde_json::{Map, Value};

use super::Wrong;

/// The largest metadata, as compact JSON.
const BYTES_MAX: usize = 4096;

/// A client's own JSON object: up to 4 KiB as compact JSON, without U+0000, which PostgreSQL cannot store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(Map<String, Value>);

impl Metadata {
    /// # Errors
    /// The first rule that the object breaks.
    pub fn check(members: &Map<String, Value>) -> Result<(), Wrong> {
        if members.values().any(has_nul) || members.keys().any(|key| key.contains('\0')) {
            return Err(Wrong::Nul);
        }
        let mut size = Size(0);
        if serde_json::to_writer(&mut size, members).is_err() || size.0 > BYTES_MAX {
            return Err(Wrong::TooManyBytes { bytes_max: BYTES_MAX });
        }
        Ok(())
    }

    /// # Errors
    /// As [`Metadata::check`].
    pub fn parse(members: Map<String, Value>) -> Result<Self, Wrong> {
        Self::check(&members)?;
        Ok(Self(members))
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }
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

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::Metadata;

    fn code(value: &Value) -> Option<&'static str> {
        Metadata::parse(value.as_object().unwrap().clone()).err().map(|wrong| wrong.code())
    }

    #[test]
    fn is_small_and_free_of_nul() {
        assert_eq!(code(&json!({"a": [1, {"b": null}]})), None);
        // {"a":"…"} has eight bytes beside the text.
        assert_eq!(code(&json!({"a": "x".repeat(4088)})), None);
        assert_eq!(code(&json!({"a": "x".repeat(4089)})), Some("too-long"));
        for nul in [json!({"a\0": 1}), json!({"a": "\0"}), json!({"a": [{"b\0": 1}]}), json!({"a": ["\0"]})] {
            assert_eq!(code(&nul), Some("invalid-character"));
        }
    }
}
