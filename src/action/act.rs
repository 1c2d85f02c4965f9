use entity::{BrandId, JobId, TenantId, tenant};
use serde_json::{Map, Value, json};

use crate::jobs::Job;
use crate::pass::Order;

/// Something that an operator did.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(super) name: &'static str,
    /// `None` where it concerns no single tenant.
    pub(super) tenant: Option<TenantId>,
    /// A JSON object of objects, texts, whole numbers, booleans and nulls: what other numbers look like in JSON is not one
    /// thing. The members of an act on a tenant say how the tenant is after it.
    pub(super) details: Value,
}

impl Act {
    pub(crate) fn created_tenant(tenant: &tenant::Model, brands: &[(String, BrandId)]) -> Self {
        let details = json!({ "slug": tenant.slug, "bucket": tenant.bucket, "brands": ids(brands) });
        Self { name: "tenant.create", tenant: Some(tenant.id), details }
    }

    pub(crate) fn named_bucket(tenant: TenantId, bucket: &str) -> Self {
        Self { name: "tenant.bucket", tenant: Some(tenant), details: json!({ "bucket": bucket }) }
    }

    pub(crate) fn added_brands(tenant: TenantId, brands: &[(String, BrandId)]) -> Self {
        Self { name: "tenant.brands", tenant: Some(tenant), details: json!({ "brands": ids(brands) }) }
    }

    pub(crate) fn limited_tenant(tenant: &tenant::Model) -> Self {
        Self { name: "tenant.limit", tenant: Some(tenant.id), details: limits(tenant) }
    }

    pub(crate) fn retried_job(job: &Job) -> Self {
        Self { name: "job.retry", tenant: None, details: kind(job) }
    }

    pub(crate) fn dropped_job(job: &Job) -> Self {
        Self { name: "job.drop", tenant: None, details: kind(job) }
    }

    pub(crate) fn ran_pass(order: &Order, job: JobId) -> Self {
        let details = json!({
            "pass": order.pass.name(),
            "dry_run": order.dry_run,
            "older_than_secs": order.older_than_secs,
            "job_id": job,
        });
        Self { name: "pass.run", tenant: None, details }
    }
}

/// The limits of a tenant as they are recorded. A time is in microseconds since 1970.
pub(super) fn limits(tenant: &tenant::Model) -> Value {
    json!({
        "suspended_at_micros": tenant.suspended_at.map(|at| at.timestamp_micros()),
        "quota_bytes": tenant.quota_bytes,
        "quota_live_sessions": tenant.quota_live_sessions,
    })
}

/// Brands as they are recorded: ids by slug.
pub(super) fn ids(brands: &[(String, BrandId)]) -> Value {
    brands.iter().map(|(slug, id)| (slug.clone(), json!(id))).collect::<Map<_, _>>().into()
}

fn kind(job: &Job) -> Value {
    json!({ "job_id": job.id, "kind": job.kind })
}
