use std::collections::{BTreeMap, BTreeSet};

use entity::{BrandId, TenantId, tenant};

use super::{prepare_bucket, rows};
use crate::action::{self, Act};
use crate::caller::{Actor, Brands};
use crate::engine::Engine;
use crate::error::{Error, Field, Result};
use crate::input::{BucketName, Slug, Wrong};
use crate::storage;

/// A tenant and all its brands, by slug.
#[derive(Debug)]
pub struct Created {
    pub tenant_id: TenantId,
    /// Whether this call made the tenant.
    pub is_new: bool,
    pub brands: BTreeMap<String, BrandId>,
    /// Whether the named bucket could be made ready: see [`prepare_bucket`]. The tenant exists in either case.
    pub prepared: Result<(), storage::Error>,
}

/// Creates a tenant and its brands. Those that exist already keep their ids; a tenant without a bucket gets the named one.
/// One transaction makes and records the changes.
///
/// # Errors
/// [`Error::Invalid`] if the tenant already has a different bucket.
pub async fn create(
    engine: &Engine,
    actor: &Actor,
    slug: &Slug,
    brands: &[Slug],
    bucket: Option<&BucketName>,
) -> Result<Created> {
    ensure(engine, actor, slug.as_str(), brands, bucket.map(BucketName::as_str)).await
}

/// Creates brands of a tenant. Those that exist already keep their ids.
///
/// # Errors
/// The database does not answer.
pub async fn add_brands(engine: &Engine, actor: &Actor, tenant: &tenant::Model, brands: &[Slug]) -> Result<()> {
    ensure(engine, actor, &tenant.slug, brands, None).await.map(drop)
}

async fn ensure(engine: &Engine, actor: &Actor, slug: &str, brands: &[Slug], bucket: Option<&str>) -> Result<Created> {
    let now = engine.clock.now();
    let tx = engine.db.begin().await?;
    let is_new = rows::insert(&tx, slug, bucket, now).await?;
    let mut tenant = rows::find_by_slug(tx.conn(), slug).await?.ok_or(Error::NotFound)?;
    let mut acts = Vec::new();
    if let Some(bucket) = bucket.filter(|_| tenant.bucket.is_none()) {
        if rows::set_bucket(&tx, tenant.id, bucket).await? {
            acts.push(Act::named_bucket(tenant.id, bucket));
        }
        tenant = rows::find_by_slug(tx.conn(), slug).await?.ok_or(Error::NotFound)?;
    }
    if bucket.is_some() && tenant.bucket.as_deref() != bucket {
        return Err(Error::wrong(Field::Bucket, Wrong::AnotherBucket));
    }
    let mut added = Vec::new();
    // In sorted order, to avoid deadlocks: each insert waits for a concurrent insert of the same slug.
    for slug in brands.iter().map(Slug::as_str).collect::<BTreeSet<_>>() {
        added.extend(rows::insert_brand(&tx, tenant.id, slug, now).await?.map(|id| (slug.to_owned(), id)));
    }
    let all = rows::find_brands(tx.conn(), tenant.id, &Brands::All).await?;
    if is_new {
        acts.push(Act::created_tenant(&tenant, &added));
    } else if !added.is_empty() {
        acts.push(Act::added_brands(tenant.id, &added));
    }
    for act in acts {
        action::record(engine, &tx, actor, act).await?;
    }
    tx.commit().await?;
    let brands = all.into_iter().map(|brand| (brand.slug, brand.id)).collect();
    let prepared = match bucket {
        Some(bucket) => prepare_bucket(engine, bucket).await,
        None => Ok(()),
    };
    Ok(Created { tenant_id: tenant.id, is_new, brands, prepared })
}
