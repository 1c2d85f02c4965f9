//! What the types that are made from a text have in common.
//!
//! Lengths count Unicode scalars, so that a name in emoji or Arabic may be as long as one in Latin letters.

use std::borrow::Cow;

use super::Wrong;

/// The rule of a text as JSON Schema writes it, for the published contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The `format` by which a field of the contract names this rule.
    pub format: &'static str,
    pub min_length: Option<usize>,
    pub max_length: Option<usize>,
    /// A regular expression (ECMA-262).
    pub pattern: Option<Cow<'static, str>>,
}

/// A type whose values are texts that have passed its check.
pub trait Text: Sized {
    const RULE: Rule;

    /// # Errors
    /// The first rule that the text breaks.
    fn check(text: &str) -> Result<(), Wrong>;

    /// # Errors
    /// As [`Text::check`].
    fn parse(text: impl Into<String>) -> Result<Self, Wrong>;
}

/// Defines a type whose values are texts that `$check` accepts.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $rule:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $crate::input::Text for $name {
            const RULE: $crate::input::Rule = $rule;

            fn check(text: &str) -> Result<(), $crate::input::Wrong> {
                $check(text)
            }

            fn parse(text: impl Into<String>) -> Result<Self, $crate::input::Wrong> {
                let text = text.into();
                <Self as $crate::input::Text>::check(&text)?;
                Ok(Self(text))
            }
        }

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::input::Wrong;

            fn from_str(text: &str) -> Result<Self, $crate::input::Wrong> {
                <Self as $crate::input::Text>::parse(text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(super) use text;

/// Checks a text that people write on one line: 1 to `chars_max` characters, none of Unicode's category Cc. PostgreSQL
/// cannot store U+0000, and the other control characters can forge lines in logs.
pub(super) fn is_line(text: &str, chars_max: usize) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err(Wrong::Empty);
    }
    // Bytes are at least as many as characters: the common case is decided without counting.
    if text.len() > chars_max && text.chars().nth(chars_max).is_some() {
        return Err(Wrong::TooLong { chars_max });
    }
    if text.chars().any(char::is_control) {
        return Err(Wrong::ControlCharacter);
    }
    Ok(())
}

/// The rule of [`is_line`], as JSON Schema.
pub(super) const fn line(format: &'static str, chars_max: usize) -> Rule {
    Rule {
        format,
        min_length: Some(1),
        max_length: Some(chars_max),
        pattern: Some(Cow::Borrowed(r"^[^\x00-\x1f\x7f-\x9f]+$")),
    }
}

#[cfg(test)]
pub(super) fn code<T: Text>(text: &str) -> Option<&'static str> {
    T::parse(text).err().map(|wrong| wrong.code())
}
