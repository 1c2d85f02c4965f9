use entity::{TenantId, tenant};

use super::rows::{self, Usage};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// A tenant, its limits, and what it holds.
#[derive(Clone, Debug)]
pub struct Standing {
    pub tenant: tenant::Model,
    pub usage: Usage,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    pub tenants: Vec<Standing>,
    /// Pass this as `after` for the next page; `None` on the last one.
    pub next: Option<String>,
}

/// All tenants by slug, `limit` (1 to 200) at a time.
pub async fn list(engine: &Engine, after: Option<&str>, limit: u64) -> Result<Page> {
    // One more than asked for tells whether there is a next page.
    let mut tenants = rows::page(engine.db.search_conn(), after, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = tenants.len() > wanted;
    tenants.truncate(wanted);
    let next = tenants.last().filter(|_| more).map(|last| last.slug.clone());

    let ids: Vec<_> = tenants.iter().map(|tenant| tenant.id).collect();
    let usages = rows::usages(engine.db.search_conn(), &ids).await?;
    let standing = |tenant: tenant::Model| {
        let usage = usages.get(&tenant.id).copied().unwrap_or_default();
        Standing { tenant, usage }
    };
    Ok(Page { tenants: tenants.into_iter().map(standing).collect(), next })
}

/// How one tenant stands.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn standing(engine: &Engine, id: TenantId) -> Result<Standing> {
    let tenant = rows::find(engine.db.conn(), id).await?.ok_or(Error::NotFound)?;
    let usage = rows::usage(engine.db.conn(), id).await?;
    Ok(Standing { tenant, usage })
}
