//! Work in the background: rows that are claimed, done and deleted, by any process on the database.
//!
//! A worker claims a job for the length of a lease and says three times in it that it lives. What a job changes is
//! committed together with the end of the job ([`Lease::settle`]), so a worker that lost its job to another commits
//! nothing, and each effect is there once, whatever dies.
//!
//! Places are shared by tenant: a free one goes to a job of the tenant that has the fewest, over all processes. A job
//! whose time has not come is kept apart from those that wait for a place, so that many of them are in nobody's way.

mod attempt;
mod begin;
mod lease;
mod list;
pub mod rows;
mod share;
mod work;
mod worker;

use chrono::{DateTime, Utc};
use entity::{TenantId, job};
use serde_json::Value;

pub use attempt::{Ended, Ending, Work};
pub use begin::begin;
pub use lease::Lease;
pub use list::{Filter, State, count, discard, list, retry};
pub use rows::{enqueue, enqueue_all};
pub use worker::{Workers, start, start_with, work_off, work_off_with};

use crate::pass::Pass;

pub type Job = job::Model;

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Copy a completed upload to where its asset is served from.
    Promote,
    /// The same, of an object so large that it is copied by parts: apart, because it may take an hour.
    PromoteByParts,
    DetectAbandoned,
    Cleanup,
    Orphans,
    Reconcile,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Promote, Self::PromoteByParts, Self::DetectAbandoned, Self::Cleanup, Self::Orphans, Self::Reconcile];

    /// The name in `job.kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::PromoteByParts => "promote-by-parts",
            Self::DetectAbandoned => Pass::DetectAbandoned.name(),
            Self::Cleanup => Pass::Cleanup.name(),
            Self::Orphans => Pass::Orphans.name(),
            Self::Reconcile => Pass::Reconcile.name(),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl From<Pass> for Kind {
    fn from(pass: Pass) -> Self {
        match pass {
            Pass::DetectAbandoned => Self::DetectAbandoned,
            Pass::Cleanup => Self::Cleanup,
            Pass::Orphans => Self::Orphans,
            Pass::Reconcile => Self::Reconcile,
        }
    }
}

/// A job to be done.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub kind: Kind,
    /// Whose share of the workers' places it takes; `None`: the deployment's own.
    pub tenant: Option<TenantId>,
    /// A JSON object.
    pub payload: Value,
    /// Of one tenant's jobs, lower comes first; 0 is usual.
    pub priority: i32,
    /// While a job with this key is not done, no other one is taken.
    pub dedupe_key: Option<String>,
    pub run_at: DateTime<Utc>,
}
