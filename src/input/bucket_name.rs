use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::text::text;
use super::{Rule, Wrong};

text! {
    /// A name that S3 allows for a bucket (Amazon S3 User Guide, "General purpose bucket naming rules"). Prefixes and
    /// suffixes that only AWS reserves are not refused.
    BucketName,
    Rule {
        format: "bucket-name",
        min_length: Some(3),
        max_length: Some(63),
        pattern: Some(Cow::Borrowed("^[a-z0-9]([a-z0-9-]|[.][a-z0-9-])*[a-z0-9]$")),
    },
    check
}

fn check(name: &str) -> Result<(), Wrong> {
    let is_outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_inner = |byte: u8| is_outer(byte) || byte == b'.' || byte == b'-';
    let bytes = name.as_bytes();
    let is_bucket_name = (3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(is_inner)
        && bytes.first().copied().is_some_and(is_outer)
        && bytes.last().copied().is_some_and(is_outer)
        && !name.contains("..")
        && !name.starts_with("xn--")
        && name.parse::<Ipv4Addr>().is_err();
    if is_bucket_name { Ok(()) } else { Err(Wrong::NotABucketName) }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn is_one_that_s3_allows() {
        for name in ["abc", "a-b", "my.bucket-1", "123", &"a".repeat(63), "1.2.3", "a--b"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "ab",
            &"a".repeat(64),
            "a_b",
            "Abc",
            "abc-",
            "-abc",
            ".abc",
            "abc.",
            "a..b",
            "xn--abc",
            "192.168.5.4",
            "a b",
            "äbc",
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
