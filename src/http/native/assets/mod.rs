//! `/app/assets`.

pub(super) mod complete;
pub(super) mod complete_batch;
pub(super) mod download;
pub(super) mod find;
