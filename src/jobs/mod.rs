//! Background jobs: rows that any process on the database claims, works on and deletes.
//!
//! A worker claims a job for the length of a lease and sends three heartbeats per lease length. A pass ends its job in the
//! transaction that commits its result ([`Lease::settle`]), so a worker that lost its lease commits nothing. A promotion
//! needs no lease: doing it twice has the effect of doing it once.
//!
//! Tenants share the places in which jobs run: a free place goes to the waiting tenant that holds the fewest, over all
//! processes. Jobs that are not due yet are kept apart from jobs that wait for a place, so that many of them do not slow
//! down claiming.

mod attempt;
mod begin;
mod lease;
mod list;
pub mod rows;
mod share;
mod worker;

use chrono::{DateTime, Utc};
use entity::{JobKind, TenantId, job};
use serde_json::Value;

pub use attempt::{Ended, Ending, Work};
pub use begin::begin;
pub use lease::Lease;
pub use list::{Filter, State, count, discard, list, retry};
pub use rows::{enqueue, enqueue_all};
pub use worker::{Workers, start, work_off};

pub type Job = job::Model;

/// A job to enqueue.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub kind: JobKind,
    /// The tenant whose share of the workers' places the job uses; `None` for the deployment's own jobs.
    pub tenant: Option<TenantId>,
    /// A JSON object.
    pub payload: Value,
    /// Among one tenant's jobs, lower values come first; usually 0.
    pub priority: i32,
    /// While a job with this key is neither done nor dead, no other job with the key is enqueued.
    pub dedupe_key: Option<String>,
    pub run_at: DateTime<Utc>,
}
