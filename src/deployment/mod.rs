//! This deployment: whether it is ready, and which buckets it owns. A bucket that it shares with another deployment by
//! mistake is not cleaned.

mod own;
mod ready;
mod rows;

pub use own::{id, must_own, refuse_foreign};
pub use ready::{Health, Readiness, ReadinessCache, ready};
