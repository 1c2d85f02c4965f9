//! What is wrong between rows and store, and waits for an operator or for the next pass.

mod count;
mod list;
pub mod rows;
mod search;

pub use count::count;
pub use list::{Filter, list};
pub use search::{Search, last_search};

use chrono::{DateTime, Utc};
use entity::{AssetId, SessionId, TenantId};

/// What may be found of a session. Of one session it is one of these at most: the cleanup leaves alone what a FAILED asset
/// was to be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its asset is FAILED, and stays so: what was uploaded was overwritten or gone before it was copied, or the copy has
    /// another size or checksum.
    AssetFailed,
    /// It has ended, and the cleanup has tried to clear its storage and could not. The next one tries again.
    NotCleared,
}

impl Kind {
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

/// Something that was found of a session.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kind: Kind,
    pub tenant: TenantId,
    pub session: SessionId,
    /// `None` where the session became none.
    pub asset: Option<AssetId>,
    pub bucket: String,
    /// Where its bytes are, or were.
    pub object_key: String,
    /// When the asset failed; when the cleanup first failed.
    pub since: DateTime<Utc>,
    /// For people.
    pub cause: String,
}
