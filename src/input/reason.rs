use super::Wrong;
use super::text::{is_line, line, text};

/// The longest reason, in Unicode scalars.
const CHARS_MAX: usize = 500;

text! {
    /// Why an operator or a manager did something: 1 to 500 characters, none of them a control character.
    Reason,
    line("reason", CHARS_MAX),
    check
}

fn check(text: &str) -> Result<(), Wrong> {
    is_line(text, CHARS_MAX)
}
