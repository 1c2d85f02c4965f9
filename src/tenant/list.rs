use entity::{TenantId, tenant};

use super::rows::{self, Usage};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::page::Page;

/// A tenant with its limits and its usage.
#[derive(Clone, Debug)]
pub struct Standing {
    pub tenant: tenant::Model,
    pub usage: Usage,
}

/// Returns the next `limit` (1 to 200) tenants, ordered by slug.
pub async fn list(engine: &Engine, after: Option<&str>, limit: u64) -> Result<Page<Standing, String>> {
    let tenants = rows::page(engine.db.search_conn(), after, limit + 1).await?;
    let Page { items: tenants, next } = Page::cut(tenants, limit, |last| last.slug.clone());
    let ids: Vec<_> = tenants.iter().map(|tenant| tenant.id).collect();
    let usages = rows::usages(engine.db.search_conn(), &ids).await?;
    let standing = |tenant: tenant::Model| {
        let usage = usages.get(&tenant.id).copied().unwrap_or_default();
        Standing { tenant, usage }
    };
    Ok(Page { items: tenants.into_iter().map(standing).collect(), next })
}

/// Returns one tenant with its limits and its usage.
///
/// # Errors
/// [`Error::NotFound`] if there is no such tenant.
pub async fn standing(engine: &Engine, id: TenantId) -> Result<Standing> {
    let conn = &engine.db.conn().of(id);
    let tenant = rows::find(conn, id).await?.ok_or(Error::NotFound)?;
    let usage = rows::usage(conn, id).await?;
    Ok(Standing { tenant, usage })
}
