//! `/app/uploads` and `/app/batches`.

pub(super) mod activity;
pub(super) mod batch;
pub(super) mod batch_summary;
pub(super) mod cancel;
pub(super) mod events;
pub(super) mod find;
pub(super) mod initiate;
pub(super) mod list;
pub(super) mod part_urls;
pub(super) mod receipt;
pub(super) mod resume;
pub(super) mod wait;
