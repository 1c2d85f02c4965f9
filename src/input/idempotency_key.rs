use std::borrow::Cow;

use super::reference::CHARS_MAX;
use super::text::{is_line, text};
use super::{Rule, Wrong};

text! {
    /// The key by which a repeated request is recognized: 1 to 128 printable ASCII characters.
    IdempotencyKey,
    Rule {
        format: "idempotency-key",
        min_length: Some(1),
        max_length: Some(CHARS_MAX),
        pattern: Some(Cow::Borrowed(r"^[\x20-\x7e]+$")),
    },
    check
}

impl IdempotencyKey {
    /// Returns the key of one file of a batch that was sent with this key. A caller's own key cannot contain a line break,
    /// so no key of a single upload equals one of these.
    pub fn of_file(&self, index: usize) -> Self {
        Self(format!("{}\n{index}", self.0))
    }
}

fn check(text: &str) -> Result<(), Wrong> {
    if text.is_empty() || !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err(Wrong::NotPrintableAscii { chars_max: CHARS_MAX });
    }
    is_line(text, CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::IdempotencyKey;
    use crate::input::text::code;

    #[test]
    fn is_printable_ascii() {
        assert_eq!(code::<IdempotencyKey>("a b~"), None);
        assert_eq!(code::<IdempotencyKey>("ü"), Some("invalid-character"));
        assert_eq!(code::<IdempotencyKey>("a\n1"), Some("invalid-character"));
    }
}
