//! Ids as types: a tenant's id does not fit where a session's is asked for.

use std::fmt;
use std::str::FromStr;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, a UUIDv7 (RFC 9562, section 5.7): ids sort by the time they were made.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl TryFromU64 for $name {
            // sea-orm asks this of every key type, for databases that number rows themselves.
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Only the hyphenated form: one id has one spelling on the wire.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let hyphenated: uuid::fmt::Hyphenated = text.parse()?;
                Ok(Self(hyphenated.into_uuid()))
            }
        }
    };
}

id!(
    /// A customer of the web application; the wall between two of them is the first promise of this server.
    TenantId
);
id!(
    /// A brand of one tenant.
    BrandId
);
id!(
    /// An upload session; its object key is derived from it alone.
    SessionId
);
id!(
    /// What a completed session becomes.
    AssetId
);
