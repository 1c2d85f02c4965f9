use entity::SessionId;

use super::rows;
use crate::caller::{Admin, Caller};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::tenant;

/// Like [`tenant::within`], for verbs on one session. An operator need not name the session's tenant.
///
/// # Errors
/// As [`tenant::within`]; [`Error::NotFound`] if no tenant has such a session.
pub async fn within(engine: &Engine, admin: &Admin, named: Option<&str>, session: SessionId) -> Result<Caller> {
    match (admin, named) {
        (Admin::Operator(actor), None) => {
            let tenant = rows::tenant_of(engine.db.conn(), session).await?.ok_or(Error::NotFound)?;
            Ok(Caller::operating(tenant, actor.clone()))
        }
        _ => tenant::within(engine, admin, named).await,
    }
}
