use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Time;
use crate::caller::{Caller, Permission};
use crate::tenant::Standing;
use crate::tenant::usage::Day;

/// A tenant, its limits and its usage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantView {
    tenant_id: Uuid,
    slug: String,
    /// The tenant's own bucket, under the dedicated strategy; null unless an operator asks.
    bucket: Option<String>,
    /// Since when the tenant cannot open new sessions; null if it can.
    suspended_at: Option<Time>,
    /// The most bytes that the tenant may hold; null for no limit.
    quota_bytes: Option<i64>,
    /// The most sessions that may be INITIATING or UPLOADING; null for no limit.
    quota_live_sessions: Option<i64>,
    /// Sessions that are INITIATING or UPLOADING.
    live_sessions: i64,
    /// Bytes of live sessions, of assets, and of FAILED and CANCELLED sessions whose storage is not cleared yet.
    bytes: i64,
    created_at: Time,
}

impl From<Standing> for TenantView {
    fn from(standing: Standing) -> Self {
        let Standing { tenant, usage } = standing;
        Self {
            tenant_id: tenant.id.0,
            slug: tenant.slug,
            bucket: tenant.bucket,
            suspended_at: tenant.suspended_at.map(Time),
            quota_bytes: tenant.quota_bytes,
            quota_live_sessions: tenant.quota_live_sessions,
            live_sessions: usage.live_sessions,
            bytes: usage.bytes,
            created_at: Time(tenant.created_at),
        }
    }
}

impl TenantView {
    /// Only operators may see where the tenant's bytes are stored.
    pub(crate) fn seen_by(self, caller: &Caller) -> Self {
        if caller.may(Permission::Operator) { self } else { Self { bucket: None, ..self } }
    }
}

/// What happened to a tenant's uploads on one day, in UTC.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageDay)]
pub(crate) struct DayView {
    #[schema(value_type = String, format = Date)]
    day: NaiveDate,
    opened: i64,
    completed: i64,
    failed: i64,
    cancelled: i64,
    bytes_completed: i64,
}

impl From<(NaiveDate, Day)> for DayView {
    fn from((day, of): (NaiveDate, Day)) -> Self {
        let Day { opened, completed, failed, cancelled, bytes_completed } = of;
        Self { day, opened, completed, failed, cancelled, bytes_completed }
    }
}

/// A tenant's usage, now and by day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantUsage)]
pub(crate) struct UsageView {
    #[serde(flatten)]
    tenant: TenantView,
    /// Every day of the span, oldest first.
    days: Vec<DayView>,
}

impl UsageView {
    pub(crate) fn new(standing: Standing, days: BTreeMap<NaiveDate, Day>) -> Self {
        Self { tenant: standing.into(), days: days.into_iter().map(Into::into).collect() }
    }

    pub(crate) fn seen_by(self, caller: &Caller) -> Self {
        Self { tenant: self.tenant.seen_by(caller), ..self }
    }
}
