//! This deployment: whether it can work, and the buckets that are its own. A bucket shared with another one by mistake is
//! not cleaned.

mod own;
mod ready;
mod rows;

pub use own::{buckets, id, mark, must_own, refuse_foreign};
pub use ready::{Damage, Health, LastLook, Readiness, heed, ready};
