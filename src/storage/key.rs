//! Object keys. A client's file name is never part of one.

use std::str::FromStr;

use entity::{AssetId, SessionId, TenantId};

/// The prefix of temporary objects.
pub const TEMP: &str = "temp/";
/// The prefix of the quarantine: every upload arrives under it, and nothing in it is ever served.
pub const UPLOADS: &str = "temp/uploads/";
/// The prefix of what is served.
pub const ASSETS: &str = "assets/";
/// The object that says which deployment a bucket's uploads belong to.
pub const OWNER: &str = "temp/uploads/.owner";
/// The key with which a server probes the store: whether the embedded one accepts writes, how any store lists its uploads.
pub const PROBE: &str = "temp/uploads/.probe";

/// The suffix of the key of an object as it was uploaded.
const ORIGINAL: &str = "/original";

/// A bucket and a key in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    pub bucket: String,
    pub key: String,
}

impl Location {
    /// Returns where a session's bytes arrive: `temp/uploads/{session id}/original`. The key depends on the id alone, so
    /// that an effect whose record was lost can be found again. Bucket policies and lifecycle rules rely on it: it must
    /// never change.
    pub fn upload(bucket: &str, session: SessionId) -> Self {
        Self { bucket: bucket.to_owned(), key: format!("{UPLOADS}{session}{ORIGINAL}") }
    }

    /// Returns where an asset is served from: `assets/{tenant id}/{asset id}/original`.
    pub fn asset(bucket: &str, tenant: TenantId, asset: AssetId) -> Self {
        Self { bucket: bucket.to_owned(), key: format!("{ASSETS}{tenant}/{asset}{ORIGINAL}") }
    }

    /// Returns the location of the server's probes of the store.
    pub fn probe(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), key: PROBE.to_owned() }
    }

    /// Returns the location of the marker of a bucket's owner.
    pub fn owner(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), key: OWNER.to_owned() }
    }
}

/// Returns the session whose bytes arrive under this key; `None` for a key that is not ours.
pub fn session_of(key: &str) -> Option<SessionId> {
    id(key.strip_prefix(UPLOADS)?.strip_suffix(ORIGINAL)?)
}

/// Returns the asset that is served from this key; `None` for a key that is not ours.
pub fn asset_of(key: &str) -> Option<(TenantId, AssetId)> {
    let (tenant, asset) = key.strip_prefix(ASSETS)?.strip_suffix(ORIGINAL)?.split_once('/')?;
    Some((id(tenant)?, id(asset)?))
}

/// Parses an id as we write it, and in no other spelling.
fn id<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|id| id.to_string() == text)
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
}
