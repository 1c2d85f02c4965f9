use std::borrow::Cow;

use super::text::text;
use super::{Rule, Wrong};

/// The longest media type, in ASCII characters.
const CHARS_MAX: usize = 128;

text! {
    /// `type/subtype` with parameters (RFC 9110, section 8.3.1), up to 128 ASCII characters; or empty, which browsers send
    /// for a file whose type they do not know. Tabs, which the grammar allows between parameters, are refused, because the
    /// text is signed into URLs.
    MediaType,
    Rule {
        format: "media-type",
        min_length: None,
        max_length: Some(CHARS_MAX),
        pattern: Some(Cow::Borrowed(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?$")),
    },
    check
}

impl Default for MediaType {
    /// Bytes of an unknown type (RFC 2046, section 4.5.1).
    fn default() -> Self {
        Self("application/octet-stream".to_owned())
    }
}

impl MediaType {
    /// Returns the default in place of an empty text.
    pub fn or_default(self) -> Self {
        if self.0.is_empty() { Self::default() } else { self }
    }
}

fn check(text: &str) -> Result<(), Wrong> {
    if !text.is_ascii() {
        return Err(Wrong::NotAscii);
    }
    if text.len() > CHARS_MAX {
        return Err(Wrong::TooLong { chars_max: CHARS_MAX });
    }
    if text.is_empty() || is_media_type(text) { Ok(()) } else { Err(Wrong::NotAMediaType) }
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

#[cfg(test)]
mod tests {
    use super::MediaType;
    use crate::input::text::code;

    #[test]
    fn follows_rfc_9110() {
        for text in [
            "image/png",
            "application/vnd.api+json",
            "text/plain;charset=utf-8",
            "text/plain; charset=\"utf\\\"8\" ; x=y",
            "text/plain;",
            "a/b;;c=d",
            "",
        ] {
            assert_eq!(code::<MediaType>(text), None, "{text}");
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
            assert_eq!(code::<MediaType>(text), Some("invalid-format"), "{text:?}");
        }
        assert_eq!(code::<MediaType>("image/ünique"), Some("invalid-character"));
        assert_eq!(code::<MediaType>(&format!("image/{}", "x".repeat(122))), None);
        assert_eq!(code::<MediaType>(&format!("image/{}", "x".repeat(123))), Some("too-long"));
    }
}
