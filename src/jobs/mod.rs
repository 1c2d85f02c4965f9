//! Work in the background: rows that are claimed, done and deleted, by any process on the database.

pub(crate) mod rows;

use chrono::{DateTime, Utc};
use entity::job;
use serde_json::Value;

pub use rows::enqueue;

pub type Job = job::Model;

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Copy a completed upload to where its asset is served from.
    Promote,
    DetectAbandoned,
    Cleanup,
    Orphans,
    Reconcile,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Promote, Self::DetectAbandoned, Self::Cleanup, Self::Orphans, Self::Reconcile];

    /// The name in `job.kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::DetectAbandoned => "detect-abandoned",
            Self::Cleanup => "cleanup",
            Self::Orphans => "orphans",
            Self::Reconcile => "reconcile",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A job to be done.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub kind: Kind,
    /// A JSON object.
    pub payload: Value,
    /// Lower comes first; 0 is usual.
    pub priority: i32,
    /// While a job with this key is not done, no other one is taken.
    pub dedupe_key: Option<String>,
    pub run_at: DateTime<Utc>,
}
