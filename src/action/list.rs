use entity::TenantId;
pub use entity::operator_action::Model as Action;

use super::rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::page::Page;

/// Returns what operators did, to one tenant or overall, newest first; `limit` must be 1 to 1,000.
pub async fn list(
    engine: &Engine,
    tenant: Option<TenantId>,
    before: Option<i64>,
    limit: u64,
) -> Result<Page<Action, i64>> {
    let actions = rows::page(engine.db.search_conn(), tenant, before, limit + 1).await?;
    Ok(Page::cut(actions, limit, |last| last.seq))
}
