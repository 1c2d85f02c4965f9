use entity::TenantId;
pub use entity::operator_action::Model as Action;

use super::rows;
use crate::engine::Engine;
use crate::error::Result;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    pub actions: Vec<Action>,
    /// Pass this as `before` for the next page; `None` on the last one.
    pub next: Option<i64>,
}

/// What operators did, to one tenant or at all, newest first; `limit` is 1 to 1,000.
pub async fn list(engine: &Engine, tenant: Option<TenantId>, before: Option<i64>, limit: u64) -> Result<Page> {
    // One more than asked for tells whether there is a next page.
    let mut actions = rows::page(engine.db.search_conn(), tenant, before, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = actions.len() > wanted;
    actions.truncate(wanted);
    let next = actions.last().filter(|_| more).map(|last| last.seq);
    Ok(Page { actions, next })
}
