use super::Wrong;
use super::text::{is_line, line, text};

/// The longest title, in Unicode scalars.
const CHARS_MAX: usize = 255;

text! {
    /// The title of an asset: 1 to 255 characters, none of them a control character.
    Title,
    line("title", CHARS_MAX),
    check
}

fn check(text: &str) -> Result<(), Wrong> {
    is_line(text, CHARS_MAX)
}
