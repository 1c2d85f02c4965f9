//! Where an object lies. A client's file name is never part of it.

use std::net::Ipv4Addr;
use std::str::FromStr;

use entity::{AssetId, SessionId, TenantId};

/// What does not last.
pub const TEMP: &str = "temp/";
/// The quarantine: every upload arrives under it, nothing in it is ever served.
pub const UPLOADS: &str = "temp/uploads/";
/// What [`is_bucket_name`] asks for.
pub const BUCKET_NAMES: &str =
    "must be 3 to 63 of a-z, 0-9, inner hyphens and single inner dots; no IP address, and no xn-- in front";
/// What is served.
pub const ASSETS: &str = "assets/";
/// The object that says which deployment a bucket's uploads belong to.
pub const OWNER: &str = "temp/uploads/.owner";
/// Under which a server tries what the store does: whether the embedded one takes writes, how any lists its uploads.
pub const PROBE: &str = "temp/uploads/.probe";

/// The end of the key of an object as it was uploaded.
const ORIGINAL: &str = "/original";

/// A bucket and a key in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    pub bucket: String,
    pub key: String,
}

impl Location {
    /// Where a session's bytes arrive: `temp/uploads/{session id}/original`. The id alone decides it, so that an
    /// effect whose record was lost can be found again. An immutable contract with bucket policies and lifecycle rules.
    pub fn upload(bucket: &str, session: SessionId) -> Self {
        Self { bucket: bucket.to_owned(), key: format!("{UPLOADS}{session}{ORIGINAL}") }
    }

    /// Where an asset is served from: `assets/{tenant id}/{asset id}/original`.
    pub fn asset(bucket: &str, tenant: TenantId, asset: AssetId) -> Self {
        Self { bucket: bucket.to_owned(), key: format!("{ASSETS}{tenant}/{asset}{ORIGINAL}") }
    }

    /// Where a server tries what the store does.
    pub fn probe(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), key: PROBE.to_owned() }
    }

    /// The marker of a bucket's owner.
    pub fn owner(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), key: OWNER.to_owned() }
    }
}

/// The session whose bytes arrive under this key; `None` for a key that is none of ours.
pub fn session_of(key: &str) -> Option<SessionId> {
    id(key.strip_prefix(UPLOADS)?.strip_suffix(ORIGINAL)?)
}

/// The asset that is served from this key; `None` for a key that is none of ours.
pub fn asset_of(key: &str) -> Option<(TenantId, AssetId)> {
    let (tenant, asset) = key.strip_prefix(ASSETS)?.strip_suffix(ORIGINAL)?.split_once('/')?;
    Some((id(tenant)?, id(asset)?))
}

/// An id as we write it, and in no other spelling.
fn id<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|id| id.to_string() == text)
}

/// Whether S3 allows the name for a bucket (Amazon S3 User Guide, "General purpose bucket naming rules"), but for prefixes
/// and suffixes that only AWS keeps for itself.
pub fn is_bucket_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    let is_outer = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().copied().all(is_inner)
        && is_outer(bytes.first())
        && is_outer(bytes.last())
        && !name.contains("..")
        && !name.starts_with("xn--")
        && name.parse::<Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written_and_no_other() {
        let (session, tenant, asset) = (SessionId::new(), TenantId::new(), AssetId::new());
        let upload = Location::upload("b", session).key;
        assert_eq!(session_of(&upload), Some(session));
        assert_eq!(asset_of(&Location::asset("b", tenant, asset).key), Some((tenant, asset)));
        let id = session.to_string();
        for foreign in [
            OWNER.to_owned(),
            upload.replace("original", "thumbnail"),
            format!("{upload}/"),
            format!("temp/uploads//{id}/original"),
            format!("temp/uploads/{}/original", id.to_uppercase()),
            format!("temp/uploads/{}/original", id.replace('-', "")),
            format!("temp/{id}/original"),
            "temp/uploads/original".to_owned(),
        ] {
            assert_eq!(session_of(&foreign), None, "{foreign}");
        }
        for foreign in [format!("assets/{id}/original"), format!("assets/{id}/{id}/{id}/original"), upload] {
            assert_eq!(asset_of(&foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_bucket_has_a_name_that_s3_allows() {
        for name in ["abc", "a-b", "my.bucket-1", "123", &"a".repeat(63), "1.2.3", "a--b"] {
            assert!(is_bucket_name(name), "{name}");
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
            assert!(!is_bucket_name(name), "{name}");
        }
    }
}
