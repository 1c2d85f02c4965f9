//! This deployment, and the buckets that are its own: a bucket shared with another one by mistake is not cleaned.

mod own;
mod rows;

pub use own::{buckets, id, mark, must_own, refuse_foreign};
