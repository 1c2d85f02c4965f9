use entity::TenantId;
use tracing::info;

use super::{Standing, rows};
use crate::action::{self, Act};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// What is to change of a tenant's limits; `None` leaves a limit as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A suspended tenant opens no new sessions. Those that run may finish.
    pub suspended: Option<bool>,
    /// The most bytes that it may hold, 0 to 2^63 - 1; `Some(None)` for any number.
    pub quota_bytes: Option<Option<i64>>,
    /// The most sessions that may be INITIATING or UPLOADING; `Some(None)` for any number.
    pub quota_live_sessions: Option<Option<i64>>,
}

/// Suspends a tenant or lets it go on, and sets its quotas. All in one step, and in force when this answers: no session is
/// opened after that which these limits do not allow.
///
/// A quota below what the tenant holds takes nothing away; it lets nothing new in. What is named is recorded as `actor`'s, also where it was so
/// before.
///
/// # Errors
/// [`Error::NotFound`] where there is no such tenant.
pub async fn limit(engine: &Engine, actor: &Actor, id: TenantId, limits: Limits) -> Result<Standing> {
    // Asked first, because the shares of no tenant cannot be locked.
    rows::find(engine.db.conn(), id).await?.ok_or(Error::NotFound)?;
    let tx = engine.db.begin().await?;
    let mut tenant = rows::lock(&tx, id).await?;
    match limits.suspended {
        Some(true) => tenant.suspended_at = tenant.suspended_at.or(Some(engine.clock.now())),
        Some(false) => tenant.suspended_at = None,
        None => {}
    }
    tenant.quota_bytes = limits.quota_bytes.unwrap_or(tenant.quota_bytes);
    tenant.quota_live_sessions = limits.quota_live_sessions.unwrap_or(tenant.quota_live_sessions);
    rows::set_limits(&tx, &tenant).await?;
    if limits != Limits::default() {
        action::record(engine, &tx, actor, Act::limited_tenant(&tenant)).await?;
    }
    tx.commit().await?;
    info!(
        actor = actor.name(),
        tenant.slug,
        suspended = tenant.suspended_at.is_some(),
        tenant.quota_bytes,
        tenant.quota_live_sessions,
        "the limits of a tenant were set"
    );
    let usage = rows::usage(engine.db.conn(), id).await?;
    Ok(Standing { tenant, usage })
}
