//! Authenticates requests. Handlers take a [`Caller`] or an [`Admin`], which the verbs on a tenant's data require.

use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::future::LocalBoxFuture;
use tracing::Span;

use super::door::Door;
use super::fair;
use super::in_flight::ShareOwner;
use super::problem::{self, Problem};
use crate::caller::{Actor, Admin, Caller, Permission};
use crate::engine::Engine;
use crate::error::{Denied, Error, Result};
use crate::tenant;
use crate::token::{Identity, Rejection};

impl FromRequest for Caller {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, actix_web::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move { Ok(caller_of(&*authenticate(&req).await?)?) })
    }
}

impl FromRequest for Admin {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, actix_web::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move {
            let identity = authenticate(&req).await?;
            if identity.permissions.has(Permission::Operator) {
                return Ok(Self::Operator(Actor::Operator(identity.user.clone())));
            }
            Ok(Self::Member(caller_of(&identity)?))
        })
    }
}

fn caller_of(identity: &Identity) -> Result<Caller, Problem> {
    let Some(tenant) = identity.tenant else {
        return Err(Problem::new(&problem::PERMISSION_DENIED, "the token names no tenant"));
    };
    Span::current().record("tenant.id", tracing::field::display(tenant));
    Ok(Caller {
        tenant,
        actor: Actor::User(identity.user.clone()),
        brands: identity.brands.clone(),
        permissions: identity.permissions,
    })
}

/// Verifies the request's token and applies its bearer's rate limit. Later calls for the same request return the identity
/// that the first one found.
///
/// # Errors
/// 401; 503 if the identity provider's keys cannot be fetched; 429 if the bearer sends requests too often.
pub(super) async fn authenticate(req: &HttpRequest) -> Result<Rc<Identity>, Problem> {
    if let Some(identity) = known(req) {
        return Ok(identity);
    }
    let door = Door::of(req);
    let token = bearer(req.headers())?;
    let identity = door.verifier.verify(token).await.map_err(|rejection| match rejection {
        Rejection::Invalid(reason) => Problem::unauthenticated(Some(reason)),
        Rejection::KeysUnavailable { retry_after_secs } => Problem::keys_unavailable(retry_after_secs),
    })?;
    // Extractors run concurrently: while this one waited for keys, another may have counted the request.
    if let Some(identity) = known(req) {
        return Ok(identity);
    }
    if let Some(limit) = &door.rate_limit {
        limit.take(&identity).map_err(Problem::rate_limited)?;
    }
    fair::name(req, ShareOwner::of(&identity));
    let identity = Rc::new(identity);
    req.extensions_mut().insert(Rc::clone(&identity));
    Ok(identity)
}

fn known(req: &HttpRequest) -> Option<Rc<Identity>> {
    req.extensions().get::<Rc<Identity>>().cloned()
}

/// The token of `Authorization: Bearer …` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut lines = headers.get_all(AUTHORIZATION);
    let line = lines.next().ok_or_else(|| Problem::unauthenticated(None))?;
    if lines.next().is_some() {
        return Err(Problem::unauthenticated(Some("the request has more than one Authorization header")));
    }
    let (scheme, token) = line.to_str().ok().and_then(|line| line.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::unauthenticated(None));
    }
    Ok(token.trim())
}

/// Checks that the caller has the permission, and that their tenant exists.
///
/// # Errors
/// [`Error::PermissionDenied`] if not.
pub(super) async fn admit(engine: &Engine, caller: &Caller, permission: Permission) -> Result<()> {
    caller.must(permission)?;
    known_tenant(engine, caller).await
}

/// # Errors
/// [`Error::PermissionDenied`] if the tenant does not exist.
pub(super) async fn known_tenant(engine: &Engine, caller: &Caller) -> Result<()> {
    if tenant::exists(engine, caller.tenant).await? {
        return Ok(());
    }
    Err(Error::PermissionDenied(Denied::UnknownTenant))
}
