//! Ids as types: a tenant's id does not fit where a session's is asked for.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// Reads an id from text.
struct Hyphenated<T>(PhantomData<T>);

impl<T: FromStr> Visitor<'_> for Hyphenated<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID in its hyphenated form")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::custom("not a UUID in its hyphenated form"))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, DeriveValueType,
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

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Hyphenated(PhantomData))
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
id!(
    /// A piece of work in the background.
    JobId
);
id!(
    /// One run of a scheduled pass.
    RunId
);
