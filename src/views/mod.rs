//! The JSON shapes that the web door and the command line share.

mod action;
mod asset;
mod finding;
mod job;
mod pass;
mod tenant;
mod upload;

use chrono::{DateTime, SecondsFormat, Utc};
use entity::ActorKind;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

pub(crate) use action::ActionView;
pub(crate) use asset::AssetView;
pub(crate) use finding::FindingView;
pub(crate) use job::JobView;
pub(crate) use pass::{PassView, RunView};
pub(crate) use tenant::{TenantView, UsageView};
pub(crate) use upload::{EventView, InspectionView, PageView, PutView, SessionView, StatusView, put_headers};

/// A time in RFC 3339 format, in UTC, always with six fractional digits.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00.000000Z")]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// The kind of an actor. The name alone does not tell it: a person may have any name.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ActorKind)]
pub(crate) enum ActorKindView {
    /// A tenant's user, named by their token's `sub`.
    User,
    /// An operator, named by their token's `sub`.
    Operator,
    /// A command beside the server; its name is `cli`.
    Command,
    /// The server itself; its name is `system`.
    System,
}

impl From<ActorKind> for ActorKindView {
    fn from(kind: ActorKind) -> Self {
        match kind {
            ActorKind::User => Self::User,
            ActorKind::Operator => Self::Operator,
            ActorKind::Command => Self::Command,
            ActorKind::System => Self::System,
        }
    }
}
