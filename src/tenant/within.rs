use entity::tenant;

use super::rows;
use crate::caller::{Admin, Caller};
use crate::database::Conn;
use crate::engine::Engine;
use crate::error::{Error, Field, Result};
use crate::input::{Slug, Text as _, Wrong};

/// Returns a caller of one tenant, for verbs on uploads: an operator in the named tenant (by slug or id), or a manager in
/// their own tenant.
///
/// # Errors
/// [`Error::Invalid`] if an operator names no tenant. [`Error::NotFound`] for an unknown tenant and, for a manager, for any
/// tenant but their own: a manager cannot tell the two apart.
pub async fn within(engine: &Engine, admin: &Admin, named: Option<&str>) -> Result<Caller> {
    match (admin, named) {
        (Admin::Operator(actor), Some(named)) => {
            let tenant = named_so(engine, named).await?;
            Ok(Caller::operating(tenant.id, actor.clone()))
        }
        (Admin::Operator(_), None) => Err(Error::wrong(Field::Tenant, Wrong::TenantRequired)),
        (Admin::Member(caller), None) => Ok(caller.clone()),
        (Admin::Member(caller), Some(named)) => {
            let tenant = find_named(&engine.db.conn().of(caller.tenant), named).await?;
            if tenant.id == caller.tenant { Ok(caller.clone()) } else { Err(Error::NotFound) }
        }
    }
}

/// Returns the tenant with this slug or id.
///
/// # Errors
/// [`Error::NotFound`] if there is no such tenant.
pub async fn named_so(engine: &Engine, name: &str) -> Result<tenant::Model> {
    find_named(engine.db.conn(), name).await
}

async fn find_named(conn: &Conn, name: &str) -> Result<tenant::Model> {
    // A slug may look like an id. The id takes precedence, because nobody can choose an id.
    if let Ok(id) = name.parse()
        && let Some(tenant) = rows::find(conn, id).await?
    {
        return Ok(tenant);
    }
    let slug = Slug::parse(name).map_err(|_| Error::NotFound)?;
    rows::find_by_slug(conn, slug.as_str()).await?.ok_or(Error::NotFound)
}
