//! `/admin`: for operators, in every tenant, and for managers, in their own.

pub(crate) mod actions;
pub(crate) mod background;
pub(crate) mod findings;
pub(crate) mod tenants;
pub(crate) mod uploads;

use serde::Deserialize;
use validator::Validate;

use super::known_tenant;
use crate::caller::{Admin, Permission};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};

/// Checks that the caller is an operator, or a manager of an existing tenant who also has the verb's own permission.
///
/// # Errors
/// [`crate::error::Error::PermissionDenied`] if not.
async fn admit(engine: &Engine, admin: &Admin, permission: Permission) -> Result<()> {
    admin.must_manage_with(permission)?;
    match admin {
        Admin::Operator(_) => Ok(()),
        Admin::Member(caller) => known_tenant(engine, caller).await,
    }
}

/// The tenant of an upload.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantQuery {
    tenant: Option<String>,
}

/// Parses a parameter that takes one of a few names.
fn named<T, const N: usize>(
    name: Option<&str>,
    parameter: &str,
    find: impl Fn(&str) -> Option<T>,
    known: [&str; N],
) -> Result<Option<T>> {
    let unknown = || {
        let detail = format!("must be one of {}", known.join(", "));
        Error::Invalid(vec![FieldError::new(parameter, "invalid-format", detail)])
    };
    name.map(|name| find(name).ok_or_else(unknown)).transpose()
}
