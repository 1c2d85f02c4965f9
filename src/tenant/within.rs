use entity::{SessionId, tenant};

use super::create::is_slug;
use super::rows;
use crate::caller::{Admin, Caller};
use crate::database::Conn;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};
use crate::session;

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
        (Admin::Operator(_), None) => {
            let detail = "is required for an operator, who belongs to no tenant: name it by slug or id";
            Err(Error::Invalid(vec![FieldError::new("?tenant", "required", detail)]))
        }
        (Admin::Member(caller), None) => Ok(caller.clone()),
        (Admin::Member(caller), Some(named)) => {
            let tenant = find_named(&engine.db.conn().of(caller.tenant), named).await?;
            if tenant.id == caller.tenant { Ok(caller.clone()) } else { Err(Error::NotFound) }
        }
    }
}

/// Like [`within`], for verbs on one session. An operator need not name the session's tenant.
///
/// # Errors
/// As [`within`]; [`Error::NotFound`] if no tenant has such a session.
pub async fn within_of(engine: &Engine, admin: &Admin, named: Option<&str>, session: SessionId) -> Result<Caller> {
    match (admin, named) {
        (Admin::Operator(actor), None) => {
            let tenant = session::rows::tenant_of(engine.db.conn(), session).await?.ok_or(Error::NotFound)?;
            Ok(Caller::operating(tenant, actor.clone()))
        }
        _ => within(engine, admin, named).await,
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
    if !is_slug(name) {
        return Err(Error::NotFound);
    }
    rows::find_by_slug(conn, name).await?.ok_or(Error::NotFound)
}
