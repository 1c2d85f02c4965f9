use std::borrow::Cow;

use super::text::{is_line, text};
use super::{Rule, Wrong};

/// The longest name, in Unicode scalars.
const CHARS_MAX: usize = 255;

text! {
    /// The name of a file: 1 to 255 characters, none of them a control character, `/` or `\`. It is data for display, never
    /// a path.
    FileName,
    Rule {
        format: "file-name",
        min_length: Some(1),
        max_length: Some(CHARS_MAX),
        pattern: Some(Cow::Borrowed(r"^[^\x00-\x1f\x7f-\x9f/\\]+$")),
    },
    check
}

fn check(text: &str) -> Result<(), Wrong> {
    is_line(text, CHARS_MAX)?;
    if text.contains(['/', '\\']) { Err(Wrong::Slash) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::FileName;
    use crate::input::text::code;

    #[test]
    fn may_be_anything_that_people_write() {
        for name in ["reel.mov", "😀😀.png", "مرحبا.txt", "..", " a b ", &"é".repeat(255)] {
            assert_eq!(code::<FileName>(name), None, "{name}");
        }
        assert_eq!(code::<FileName>(""), Some("too-short"));
        assert_eq!(code::<FileName>(&"😀".repeat(256)), Some("too-long"));
        for name in ["a/b", "a\\b", "a\0b", "a\nb", "a\u{7f}", "a\u{85}"] {
            assert_eq!(code::<FileName>(name), Some("invalid-character"), "{name:?}");
        }
    }
}
