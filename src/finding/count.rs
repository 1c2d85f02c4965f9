use super::{Kind, rows};
use crate::engine::Engine;
use crate::error::Result;

/// How many findings there are of each kind, in all tenants; also where there are none.
///
/// # Errors
/// The database does not answer.
pub async fn count(engine: &Engine) -> Result<Vec<(Kind, i64)>> {
    let mut counts = Vec::new();
    for kind in Kind::ALL {
        counts.push((kind, rows::count(engine.db.count_conn(), kind).await?));
    }
    Ok(counts)
}
