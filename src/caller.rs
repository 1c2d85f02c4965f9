//! The caller, as a verb may know it, wherever the call came from.

use entity::{ActorKind, BrandId, TenantId, upload_session};
use serde::{Deserialize, Serialize};

use crate::error::{Denied, Error, Result};

/// What a token allows. `x-permission` of the OpenAPI document names these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Permission {
    UploadsCreate = 1,
    UploadsView = 1 << 1,
    UploadsCancel = 1 << 2,
    AssetsCreate = 1 << 3,
    AssetsView = 1 << 4,
    /// Access to other users' sessions and batches, within the token's brands.
    UploadsManage = 1 << 5,
    /// Access to every tenant; never part of `*`.
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
    /// Parses names of permissions. Unknown names grant nothing; `*` grants all except `operator`.
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
    /// `"*"`: all brands of the tenant, including those created later.
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

/// Who does something, as recorded. The kind is recorded with the name, so that no name can make a person look like the
/// machine, or a user like an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum Actor {
    /// A tenant's user: the token's `sub`.
    User(String),
    /// An operator: the token's `sub`.
    Operator(String),
    /// A command of the command line.
    Command,
    /// The server itself.
    System,
}

impl Actor {
    const COMMAND: &str = "cli";
    const SYSTEM: &str = "system";

    /// Returns whether this is the recorded name of a command or of the server; no token may have such a name as its `sub`.
    pub fn is_the_machines(name: &str) -> bool {
        [Self::COMMAND, Self::SYSTEM].contains(&name)
    }

    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Operator(name) => name,
            Self::Command => Self::COMMAND,
            Self::System => Self::SYSTEM,
        }
    }

    pub const fn kind(&self) -> ActorKind {
        match self {
            Self::User(_) => ActorKind::User,
            Self::Operator(_) => ActorKind::Operator,
            Self::Command => ActorKind::Command,
            Self::System => ActorKind::System,
        }
    }
}

/// An actor as stored in a job's payload.
#[derive(Serialize, Deserialize)]
struct Written {
    actor: String,
    /// Servers of the previous version write none.
    actor_kind: Option<ActorKind>,
}

impl From<Actor> for Written {
    fn from(actor: Actor) -> Self {
        Self { actor: actor.name().to_owned(), actor_kind: Some(actor.kind()) }
    }
}

impl From<Written> for Actor {
    fn from(written: Written) -> Self {
        match (written.actor_kind, written.actor.as_str()) {
            (Some(ActorKind::System), _) | (None, Self::SYSTEM) => Self::System,
            (Some(ActorKind::Command), _) | (None, Self::COMMAND) => Self::Command,
            (Some(ActorKind::User), _) => Self::User(written.actor),
            // Only operators have ever enqueued work in their own name.
            (Some(ActorKind::Operator) | None, _) => Self::Operator(written.actor),
        }
    }
}

/// A caller within one tenant: a user, or an operator who works on that tenant.
#[derive(Clone, Debug)]
pub struct Caller {
    pub tenant: TenantId,
    /// Recorded with the caller's actions.
    pub actor: Actor,
    pub brands: Brands,
    pub permissions: Permissions,
}

/// A caller who works on more than their own uploads: an operator, or a manager of one tenant.
///
/// No verb on sessions takes one. [`crate::tenant::within`] turns it into a [`Caller`] of one tenant.
#[derive(Clone, Debug)]
pub enum Admin {
    /// Of no single tenant: by a token, or at the command line.
    Operator(Actor),
    /// Of one tenant, within the token's brands.
    Member(Caller),
}

impl Admin {
    /// Returns the operator, as recorded.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for everybody else.
    pub fn operator(&self) -> Result<&Actor> {
        match self {
            Self::Operator(actor) => Ok(actor),
            Self::Member(_) => Err(denied(Permission::Operator)),
        }
    }

    /// Checks that the caller may do this to what others opened.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for everybody except an operator, and a manager who has the permission in addition to
    /// `uploads.manage`: this door must not bypass the permission that the verb requires at any other.
    pub fn must_manage_with(&self, permission: Permission) -> Result<()> {
        match self {
            Self::Operator(_) => Ok(()),
            Self::Member(caller) => caller.must(Permission::UploadsManage).and_then(|()| caller.must(permission)),
        }
    }
}

impl Caller {
    /// Returns the caller for an operator who works on one tenant's uploads and their assets, in every brand.
    pub fn operating(tenant: TenantId, actor: Actor) -> Self {
        let permissions = [
            Permission::UploadsView,
            Permission::UploadsCancel,
            Permission::AssetsView,
            Permission::UploadsManage,
            Permission::Operator,
        ];
        let permissions = permissions.into_iter().fold(Permissions::default(), Permissions::with);
        Self { tenant, actor, brands: Brands::All, permissions }
    }

    /// Returns the name under which sessions are opened: the token's `sub`.
    pub fn user(&self) -> &str {
        self.actor.name()
    }

    /// Returns whether the caller has the permission. For parts of an answer that only callers with that permission get.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.has(permission)
    }

    /// # Errors
    /// [`Error::PermissionDenied`] if the token does not grant the permission.
    pub fn must(&self, permission: Permission) -> Result<()> {
        if self.may(permission) { Ok(()) } else { Err(denied(permission)) }
    }

    /// Returns whether this caller may know that the session exists: their own, or anyone's with `uploads.manage`, in a
    /// brand that they hold.
    pub fn sees(&self, session: &upload_session::Model) -> bool {
        self.sees_one_of(session.tenant_id, session.brand_id, &session.created_by)
    }

    /// Like [`Self::sees`], for a session of this tenant, brand and user.
    pub fn sees_one_of(&self, tenant: TenantId, brand: BrandId, user: &str) -> bool {
        self.tenant == tenant
            && self.brands.hold(brand)
            && (user == self.user() || self.permissions.has(Permission::UploadsManage))
    }
}

fn denied(permission: Permission) -> Error {
    Error::PermissionDenied(Denied::Permission(permission.name()))
}
