use super::Wrong;
use super::text::{is_line, line, text};

/// The longest reference, in Unicode scalars.
pub(super) const CHARS_MAX: usize = 128;

text! {
    /// A client's own name for something: 1 to 128 characters, none of them a control character.
    Reference,
    line("reference", CHARS_MAX),
    check
}

fn check(text: &str) -> Result<(), Wrong> {
    is_line(text, CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::Reference;
    use crate::input::text::code;

    #[test]
    fn is_a_short_line() {
        assert_eq!(code::<Reference>(&"ü".repeat(128)), None);
        assert_eq!(code::<Reference>(&"ü".repeat(129)), Some("too-long"));
        assert_eq!(code::<Reference>("a\tb"), Some("invalid-character"));
        assert_eq!(code::<Reference>(""), Some("too-short"));
    }
}
