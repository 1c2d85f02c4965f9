//! Inconsistencies between rows and store that wait for an operator or the next pass.

mod count;
mod list;
pub mod rows;
mod search;

pub use count::count;
pub use list::{Filter, list};
pub use search::{Search, last_search};

use chrono::{DateTime, Utc};
use entity::{AssetId, SessionId, TenantId};

/// The kinds of findings about sessions. A session has at most one: the cleanup leaves the upload of a FAILED asset alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The asset is FAILED for good: the uploaded object was overwritten or gone before it was copied, or the copy has the
    /// wrong size or checksum.
    AssetFailed,
    /// The session has ended, but the cleanup could not clear its storage. The next cleanup tries again.
    NotCleared,
}

impl FindingKind {
    pub const ALL: [Self; 2] = [Self::AssetFailed, Self::NotCleared];

    pub const fn name(self) -> &'static str {
        match self {
            Self::AssetFailed => "asset-failed",
            Self::NotCleared => "not-cleared",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A finding about a session.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kind: FindingKind,
    pub tenant: TenantId,
    pub session: SessionId,
    /// `None` if the session did not become an asset.
    pub asset: Option<AssetId>,
    pub bucket: String,
    /// Where its bytes are, or were.
    pub object_key: String,
    /// When the asset failed; when the cleanup first failed.
    pub since: DateTime<Utc>,
    /// For people.
    pub cause: String,
}
