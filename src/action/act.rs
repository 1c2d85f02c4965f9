use entity::{BrandId, JobId, Pass, TenantId, job, tenant};
use serde_json::{Map, Value, json};

/// Something that an operator did.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(super) name: &'static str,
    /// `None` where it concerns no single tenant.
    pub(super) tenant: Option<TenantId>,
    /// A JSON object of objects, arrays, strings, whole numbers, booleans and nulls: other numbers have more than one form
    /// in JSON. The members of an act on a tenant describe the tenant after the act.
    pub(super) details: Value,
}

impl Act {
    pub(crate) fn created_tenant(tenant: &tenant::Model, brands: &[(String, BrandId)]) -> Self {
        let mut details = made(tenant);
        details.insert("brands".to_owned(), ids(brands));
        Self { name: "tenant.create", tenant: Some(tenant.id), details: details.into() }
    }

    pub(crate) fn named_bucket(tenant: TenantId, bucket: &str) -> Self {
        Self { name: "tenant.bucket", tenant: Some(tenant), details: json!({ "bucket": bucket }) }
    }

    pub(crate) fn added_brands(tenant: TenantId, brands: &[(String, BrandId)]) -> Self {
        Self { name: "tenant.brands", tenant: Some(tenant), details: json!({ "brands": ids(brands) }) }
    }

    pub(crate) fn limited_tenant(tenant: &tenant::Model) -> Self {
        Self { name: "tenant.limit", tenant: Some(tenant.id), details: limits(tenant).into() }
    }

    pub(crate) fn retried_job(job: &job::Model) -> Self {
        Self { name: "job.retry", tenant: None, details: what(job) }
    }

    pub(crate) fn dropped_job(job: &job::Model) -> Self {
        Self { name: "job.drop", tenant: None, details: what(job) }
    }

    /// Objects and uploads under this deployment's keys that belong to no session.
    pub(crate) fn removing_orphans(bucket: &str, keys: &[&str]) -> Self {
        Self { name: "orphans.remove", tenant: None, details: json!({ "bucket": bucket, "object_keys": keys }) }
    }

    /// `older_than_secs`: the threshold that replaces the pass's own, if one does.
    pub(crate) fn ran_pass(pass: Pass, dry_run: bool, older_than_secs: Option<i64>, job: JobId) -> Self {
        let details = json!({
            "pass": pass.name(),
            "dry_run": dry_run,
            "older_than_secs": older_than_secs,
            "job_id": job,
        });
        Self { name: "pass.run", tenant: None, details }
    }
}

/// A tenant as it is recorded, without its brands. Times are in microseconds since 1970.
pub(crate) fn made(tenant: &tenant::Model) -> Map<String, Value> {
    let mut facts = limits(tenant);
    facts.insert("slug".to_owned(), json!(tenant.slug));
    facts.insert("bucket".to_owned(), json!(tenant.bucket));
    facts.insert("created_at_micros".to_owned(), json!(tenant.created_at.timestamp_micros()));
    facts
}

fn limits(tenant: &tenant::Model) -> Map<String, Value> {
    let facts = [
        ("suspended_at_micros", json!(tenant.suspended_at.map(|at| at.timestamp_micros()))),
        ("quota_bytes", json!(tenant.quota_bytes)),
        ("quota_live_sessions", json!(tenant.quota_live_sessions)),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Brands as they are recorded: ids by slug.
pub(crate) fn ids(brands: &[(String, BrandId)]) -> Value {
    brands.iter().map(|(slug, id)| (slug.clone(), json!(id))).collect::<Map<_, _>>().into()
}

/// A job as it is recorded: all that remains of a dropped job.
fn what(job: &job::Model) -> Value {
    json!({ "job_id": job.id, "kind": job.kind, "payload": job.payload })
}
