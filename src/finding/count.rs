use super::{FindingKind, rows};
use crate::engine::Engine;
use crate::error::Result;

/// Counts the findings of each kind, over all tenants. Includes kinds without findings.
///
/// # Errors
/// The database does not answer.
pub async fn count(engine: &Engine) -> Result<Vec<(FindingKind, i64)>> {
    let mut counts = Vec::new();
    for kind in FindingKind::ALL {
        counts.push((kind, rows::count(engine.db.count_conn(), kind).await?));
    }
    Ok(counts)
}
