use std::borrow::Cow;
use std::fmt;

use super::{Rule, Text, Wrong};

/// A SHA-256 digest as 64 hex digits, in any case; kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sha256(String);

impl Text for Sha256 {
    const RULE: Rule = Rule {
        format: "sha256",
        min_length: None,
        max_length: None,
        pattern: Some(Cow::Borrowed("^[0-9A-Fa-f]{64}$")),
    };

    fn check(text: &str) -> Result<(), Wrong> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(())
        } else {
            Err(Wrong::NotASha256)
        }
    }

    fn parse(text: impl Into<String>) -> Result<Self, Wrong> {
        let mut text = text.into();
        Self::check(&text)?;
        text.make_ascii_lowercase();
        Ok(Self(text))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Sha256 {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Sha256;
    use crate::input::Text;
    use crate::input::text::code;

    #[test]
    fn is_hex() {
        assert_eq!(Sha256::parse("aF".repeat(32)).map(|digest| digest.to_string()), Ok("af".repeat(32)));
        assert_eq!(code::<Sha256>(&"a".repeat(63)), Some("invalid-format"));
        assert_eq!(code::<Sha256>(&"g".repeat(64)), Some("invalid-format"));
    }
}
