//! `/admin`: for operators, in every tenant, and for managers, in their own.

pub(super) mod actions;
pub(super) mod findings;
pub(super) mod jobs;
pub(super) mod passes;
pub(super) mod tenants;
pub(super) mod uploads;

use serde::Deserialize;
use validator::Validate;

use crate::caller::{Admin, Permission};
use crate::engine::Engine;
use crate::error::Result;
use crate::http::caller::known_tenant;
use crate::http::problem::{FieldError, Problem};

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
pub(crate) struct TenantQuery {
    tenant: Option<String>,
}

/// Parses a parameter that takes one of a few names.
fn named<T, const N: usize>(
    name: Option<&str>,
    parameter: &str,
    find: impl Fn(&str) -> Option<T>,
    known: [&str; N],
) -> Result<Option<T>, Problem> {
    let unknown = || {
        let detail = format!("must be one of {}", known.join(", "));
        Problem::invalid(vec![FieldError::new(parameter, "invalid-format", detail)])
    };
    name.map(|name| find(name).ok_or_else(unknown)).transpose()
}
