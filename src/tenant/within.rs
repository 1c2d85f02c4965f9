use entity::{SessionId, tenant};

use super::create::is_slug;
use super::rows;
use crate::caller::{Admin, Caller};
use crate::database::Conn;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};
use crate::session;

/// A caller of one tenant, for verbs on uploads: an operator at work in the tenant that is named, by slug or id, or a
/// manager of their own.
///
/// # Errors
/// [`Error::Invalid`] where an operator names none; [`Error::NotFound`] for an unknown one, and to a manager for any but
/// their own: they cannot tell these apart.
pub async fn within(engine: &Engine, admin: &Admin, named: Option<&str>) -> Result<Caller> {
    match (admin, named) {
        (Admin::Operator(actor), Some(named)) => {
            let tenant = named_so(engine, named).await?;
            Ok(Caller::operating(tenant.id, actor.clone()))
        }
        (Admin::Operator(_), None) => {
            let detail = "an operator is of no tenant: name one, by slug or id";
            Err(Error::Invalid(vec![FieldError::new("?tenant", "required", detail)]))
        }
        (Admin::Member(caller), None) => Ok(caller.clone()),
        (Admin::Member(caller), Some(named)) => {
            let tenant = find_named(&engine.db.conn().of(caller.tenant), named).await?;
            if tenant.id == caller.tenant { Ok(caller.clone()) } else { Err(Error::NotFound) }
        }
    }
}

/// The same for verbs on one session, whose tenant an operator need not name.
///
/// # Errors
/// As [`within`]; [`Error::NotFound`] where there is no such session in any tenant.
pub async fn within_of(engine: &Engine, admin: &Admin, named: Option<&str>, session: SessionId) -> Result<Caller> {
    match (admin, named) {
        (Admin::Operator(actor), None) => {
            let tenant = session::rows::tenant_of(engine.db.conn(), session).await?.ok_or(Error::NotFound)?;
            Ok(Caller::operating(tenant, actor.clone()))
        }
        _ => within(engine, admin, named).await,
    }
}

/// The tenant of this slug or id.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn named_so(engine: &Engine, name: &str) -> Result<tenant::Model> {
    find_named(engine.db.conn(), name).await
}

async fn find_named(conn: &Conn, name: &str) -> Result<tenant::Model> {
    // A slug may look like an id. The id is what cannot be chosen.
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
