//! Ids as types, so that a tenant's id cannot be passed where a session's id is expected.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// Deserializes an id from text.
struct Hyphenated<T>(PhantomData<T>);

impl<T: FromStr> Visitor<'_> for Hyphenated<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID in its hyphenated form")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::custom("must be a UUID in its hyphenated form"))
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
            /// Creates a new id: a UUIDv7 (RFC 9562, section 5.7), so that ids sort by creation time.
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
            // sea-orm requires this of every key type, for databases that generate numeric keys.
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

            /// Accepts only the hyphenated form, so that an id has one spelling on the wire.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let hyphenated: uuid::fmt::Hyphenated = text.parse()?;
                Ok(Self(hyphenated.into_uuid()))
            }
        }
    };
}

id!(
    /// A customer of the web application. Isolation between tenants is the first guarantee of this server.
    TenantId
);
id!(
    /// A brand of one tenant.
    BrandId
);
id!(
    /// An upload session. Its object key is derived from this id alone.
    SessionId
);
id!(
    /// An asset: the result of a completed session.
    AssetId
);
id!(
    /// A background job.
    JobId
);
id!(
    /// One run of a scheduled pass.
    RunId
);
