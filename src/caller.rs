//! Who asks: what a verb may know of the caller, wherever the call came from.

use entity::{BrandId, TenantId, upload_session};

use crate::error::{Error, Result};

/// What a token may do. `x-permission` of the OpenAPI document names these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Permission {
    UploadsCreate = 1,
    UploadsView = 1 << 1,
    UploadsCancel = 1 << 2,
    AssetsCreate = 1 << 3,
    AssetsView = 1 << 4,
    /// Other users' sessions and batches, within the brands held.
    UploadsManage = 1 << 5,
    /// Every tenant; never part of `*`.
    Operator = 1 << 6,
}

impl Permission {
    pub const ALL: [Self; 7] = [
        Self::UploadsCreate,
        Self::UploadsView,
        Self::UploadsCancel,
        Self::AssetsCreate,
        Self::AssetsView,
        Self::UploadsManage,
        Self::Operator,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::UploadsCreate => "uploads.create",
            Self::UploadsView => "uploads.view",
            Self::UploadsCancel => "uploads.cancel",
            Self::AssetsCreate => "assets.create",
            Self::AssetsView => "assets.view",
            Self::UploadsManage => "uploads.manage",
            Self::Operator => "operator",
        }
    }
}

/// A set of permissions, as a token's `permissions` claim names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// Names that nobody knows grant nothing; `*` grants all but `operator`.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().fold(Self::default(), |set, name| match name {
            "*" => Permission::ALL.into_iter().filter(|p| *p != Permission::Operator).fold(set, Self::with),
            _ => Permission::ALL.into_iter().filter(|p| p.name() == name).fold(set, Self::with),
        })
    }

    pub fn with(self, permission: Permission) -> Self {
        Self(self.0 | permission as u8)
    }

    pub fn has(self, permission: Permission) -> bool {
        self.0 & permission as u8 != 0
    }
}

/// The brands a token holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brands {
    /// `"*"`: all of the tenant's, whichever exist when it matters.
    All,
    These(Vec<BrandId>),
}

impl Brands {
    pub fn hold(&self, brand: BrandId) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(&brand),
        }
    }
}

/// An authenticated user of one tenant.
#[derive(Clone, Debug)]
pub struct Caller {
    pub tenant: TenantId,
    /// The token's `sub`.
    pub user: String,
    pub brands: Brands,
    pub permissions: Permissions,
}

/// Somebody who asks for more than their own: an operator, or a manager of one tenant.
///
/// No verb on sessions takes one. [`crate::tenant::within`] makes a [`Caller`] of it, who is of one tenant like any other.
#[derive(Clone, Debug)]
pub enum Admin {
    /// Of every tenant, and so of none. The token's `sub`.
    Operator(String),
    /// Of one tenant, within the brands that they hold.
    Member(Caller),
}

impl Admin {
    /// The operator's name.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for everybody else.
    pub fn operator(&self) -> Result<&str> {
        match self {
            Self::Operator(user) => Ok(user),
            Self::Member(_) => Err(denied(Permission::Operator)),
        }
    }

    /// # Errors
    /// [`Error::PermissionDenied`] for everybody who is neither an operator nor has `uploads.manage`.
    pub fn must_manage(&self) -> Result<()> {
        match self {
            Self::Operator(_) => Ok(()),
            Self::Member(caller) => caller.must(Permission::UploadsManage),
        }
    }
}

impl Caller {
    /// An operator at work on one tenant's uploads, in every brand. `user` is recorded as the actor.
    pub fn operating(tenant: TenantId, user: impl Into<String>) -> Self {
        let permissions =
            [Permission::UploadsView, Permission::UploadsCancel, Permission::UploadsManage, Permission::Operator];
        let permissions = permissions.into_iter().fold(Permissions::default(), Permissions::with);
        Self { tenant, user: user.into(), brands: Brands::All, permissions }
    }

    /// # Errors
    /// [`Error::PermissionDenied`] where the token does not name the permission.
    pub fn must(&self, permission: Permission) -> Result<()> {
        if self.permissions.has(permission) {
            return Ok(());
        }
        Err(denied(permission))
    }

    /// Whether this caller may know that the session exists: their own, or anyone's with `uploads.manage`, in a
    /// brand that they hold.
    pub fn sees(&self, session: &upload_session::Model) -> bool {
        self.sees_one_of(session.tenant_id, session.brand_id, &session.created_by)
    }

    /// The same of a session of this tenant, brand and user.
    pub fn sees_one_of(&self, tenant: TenantId, brand: BrandId, user: &str) -> bool {
        self.tenant == tenant
            && self.brands.hold(brand)
            && (user == self.user || self.permissions.has(Permission::UploadsManage))
    }
}

fn denied(permission: Permission) -> Error {
    Error::PermissionDenied(format!("the token does not grant {}", permission.name()))
}
