use entity::Pass;

use super::{RunRecord, rows};
use crate::engine::Engine;
use crate::error::Result;

/// Returns the runs of one pass, or of all, newest first. The last 1,000 runs of each pass are kept.
///
/// # Errors
/// The database does not answer.
pub async fn runs(engine: &Engine, pass: Option<Pass>, limit: u64) -> Result<Vec<RunRecord>> {
    rows::runs(engine, pass, limit).await
}
