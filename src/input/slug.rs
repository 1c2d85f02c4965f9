use std::borrow::Cow;

use super::text::text;
use super::{Rule, Wrong};

text! {
    /// The name of a tenant or a brand: 1 to 63 characters of `a-z`, `0-9` and `-`, which must be neither first nor last.
    Slug,
    Rule {
        format: "slug",
        min_length: Some(1),
        max_length: Some(63),
        pattern: Some(Cow::Borrowed("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")),
    },
    check
}

impl Slug {
    /// The brand of a tenant for which none is named.
    pub fn main() -> Self {
        Self("main".to_owned())
    }
}

fn check(text: &str) -> Result<(), Wrong> {
    let is_slug = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_slug { Ok(()) } else { Err(Wrong::NotASlug) }
}
