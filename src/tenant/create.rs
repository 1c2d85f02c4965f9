use std::collections::{BTreeMap, BTreeSet};

use entity::{BrandId, TenantId};

use super::rows;
use crate::action::{self, Act};
use crate::caller::{Actor, Brands};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};
use crate::storage;

/// A tenant and all its brands, by slug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub tenant_id: TenantId,
    /// Whether this call made the tenant.
    pub is_new: bool,
    pub brands: BTreeMap<String, BrandId>,
}

/// Creates a tenant and its brands. Those that exist already keep their ids; a tenant without a bucket gets the named one.
/// One transaction makes and records the changes.
///
/// # Errors
/// [`Error::Invalid`] for a slug that [`is_slug`] rejects, a bucket name that S3 does not allow, or a tenant that already
/// has a different bucket.
pub async fn create(
    engine: &Engine,
    actor: &Actor,
    slug: &str,
    brands: &[String],
    bucket: Option<&str>,
) -> Result<Created> {
    let wrong = std::iter::once(("/slug".to_owned(), slug))
        .chain(brands.iter().enumerate().map(|(n, brand)| (format!("/brands/{n}"), brand.as_str())))
        .filter(|(_, slug)| !is_slug(slug))
        .map(|(pointer, slug)| {
            FieldError::new(pointer, "malformed", format!("{slug:?} must be 1 to 63 of a-z, 0-9 and inner hyphens"))
        });
    let bucket_wrong = bucket
        .filter(|name| !storage::is_bucket_name(name))
        .map(|_| FieldError::new("/bucket", "malformed", storage::BUCKET_NAMES));
    let wrong: Vec<_> = wrong.chain(bucket_wrong).collect();
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }

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
        let detail = "the tenant already exists with a different bucket";
        return Err(Error::Invalid(vec![FieldError::new("/bucket", "conflict", detail)]));
    }
    let mut added = Vec::new();
    // In sorted order, to avoid deadlocks: each insert waits for a concurrent insert of the same slug.
    for slug in brands.iter().collect::<BTreeSet<_>>() {
        added.extend(rows::insert_brand(&tx, tenant.id, slug, now).await?.map(|id| (slug.clone(), id)));
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
    Ok(Created { tenant_id: tenant.id, is_new, brands })
}

/// Whether the text can name a tenant or a brand: 1 to 63 of `a-z`, `0-9` and `-`, with no `-` at either end.
pub fn is_slug(slug: &str) -> bool {
    (1..=63).contains(&slug.len())
        && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !slug.starts_with('-')
        && !slug.ends_with('-')
}
