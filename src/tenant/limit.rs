use entity::TenantId;
use tracing::info;

use super::{Standing, rows};
use crate::action::{self, Act};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Changes to a tenant's limits; `None` leaves a limit unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A suspended tenant cannot open new sessions. Its running sessions may finish.
    pub suspended: Option<bool>,
    /// The maximum bytes that the tenant may hold, 0 to 2^63 - 1; `Some(None)` removes the limit.
    pub quota_bytes: Option<Option<i64>>,
    /// The maximum number of sessions that may be INITIATING or UPLOADING; `Some(None)` removes the limit.
    pub quota_live_sessions: Option<Option<i64>>,
}

/// Suspends or resumes a tenant and sets its quotas, in one transaction. The limits are in force when this returns: no later
/// session is opened that violates them.
///
/// A quota below the tenant's usage removes nothing; it only blocks new sessions. Named limits are recorded as an action of
/// `actor`, even if their values stay the same.
///
/// # Errors
/// [`Error::NotFound`] if there is no such tenant.
pub async fn limit(engine: &Engine, actor: &Actor, id: TenantId, limits: Limits) -> Result<Standing> {
    // Checked first, because `lock` inserts shares, which an unknown tenant cannot have.
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
