//! A cache of the tenants and brands that exist, so that requests need not ask the database again. Its entries never become
//! stale, because tenants and brands are never deleted.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use entity::{BrandId, TenantId};

use super::rows;
use crate::engine::Engine;
use crate::error::Result;

/// The cache. It has one entry, a few dozen bytes, for each tenant and brand in use.
#[derive(Debug, Default)]
pub struct Known {
    tenants: RwLock<HashSet<TenantId>>,
    brands: RwLock<HashSet<(TenantId, BrandId)>>,
}

/// Whether the tenant exists.
pub async fn exists(engine: &Engine, tenant: TenantId) -> Result<bool> {
    if engine.known.tenants.read().unwrap_or_else(PoisonError::into_inner).contains(&tenant) {
        return Ok(true);
    }
    let found = rows::find(&engine.db.conn().of(tenant), tenant).await?.is_some();
    if found {
        engine.known.tenants.write().unwrap_or_else(PoisonError::into_inner).insert(tenant);
    }
    Ok(found)
}

/// Whether the tenant has this brand.
pub(super) async fn has_brand(engine: &Engine, tenant: TenantId, brand: BrandId) -> Result<bool> {
    if engine.known.brands.read().unwrap_or_else(PoisonError::into_inner).contains(&(tenant, brand)) {
        return Ok(true);
    }
    let found = rows::find_brand(&engine.db.conn().of(tenant), tenant, brand).await?.is_some();
    if found {
        engine.known.brands.write().unwrap_or_else(PoisonError::into_inner).insert((tenant, brand));
    }
    Ok(found)
}
