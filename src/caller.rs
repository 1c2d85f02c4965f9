//! Who asks: what a verb may know of the caller, wherever the call came from.

use entity::{ActorKind, BrandId, TenantId, upload_session};
use serde::{Deserialize, Serialize};

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

/// Who does something, as the record names them. Of what sort they are is recorded with the name: nobody can bear a name
/// that makes a person look like the machine, or a user like an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum Actor {
    /// A tenant's user: the token's `sub`.
    User(String),
    /// An operator: the token's `sub`.
    Operator(String),
    /// A command beside the server.
    Command,
    /// The server itself.
    System,
}

impl Actor {
    const COMMAND: &str = "cli";
    const SYSTEM: &str = "system";

    /// Whether the record calls one of the machine's own actors so; no token may bear such a name as its `sub`.
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

/// How an actor stands in a job's payload.
#[derive(Serialize, Deserialize)]
struct Written {
    actor: String,
    /// Servers of the version before write none.
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
            // Nobody else has ever had work put into the queue in their own name.
            (Some(ActorKind::Operator) | None, _) => Self::Operator(written.actor),
        }
    }
}

/// Somebody who asks for something of one tenant: a user, or an operator at work there.
#[derive(Clone, Debug)]
pub struct Caller {
    pub tenant: TenantId,
    /// Recorded with what they do.
    pub actor: Actor,
    pub brands: Brands,
    pub permissions: Permissions,
}

/// Somebody who asks for more than their own: an operator, or a manager of one tenant.
///
/// No verb on sessions takes one. [`crate::tenant::within`] makes a [`Caller`] of it, who is of one tenant like any other.
#[derive(Clone, Debug)]
pub enum Admin {
    /// Of every tenant, and so of none: by a token, or at the command line.
    Operator(Actor),
    /// Of one tenant, within the brands that they hold.
    Member(Caller),
}

impl Admin {
    /// The operator, as the record names them.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for everybody else.
    pub fn operator(&self) -> Result<&Actor> {
        match self {
            Self::Operator(actor) => Ok(actor),
            Self::Member(_) => Err(denied(Permission::Operator)),
        }
    }

    /// Whether they may do this to what others opened.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for everybody but an operator, and a manager who has the permission beside
    /// `uploads.manage`: this door is no way around what the verb asks for at any other.
    pub fn must_manage_with(&self, permission: Permission) -> Result<()> {
        match self {
            Self::Operator(_) => Ok(()),
            Self::Member(caller) => caller.must(Permission::UploadsManage).and_then(|()| caller.must(permission)),
        }
    }
}

impl Caller {
    /// An operator at work on one tenant's uploads and their assets, in every brand.
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

    /// The name that sessions are opened under: the token's `sub`.
    pub fn user(&self) -> &str {
        self.actor.name()
    }

    /// For what is a part of an answer only to those who could have asked for it alone.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.has(permission)
    }

    /// # Errors
    /// [`Error::PermissionDenied`] where the token does not name the permission.
    pub fn must(&self, permission: Permission) -> Result<()> {
        if self.may(permission) { Ok(()) } else { Err(denied(permission)) }
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
            && (user == self.user() || self.permissions.has(Permission::UploadsManage))
    }
}

fn denied(permission: Permission) -> Error {
    Error::PermissionDenied(format!("the token does not grant {}", permission.name()))
}
