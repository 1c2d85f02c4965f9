//! Facts that never stop being true, remembered so that requests need not ask the database again: tenants and brands
//! are never deleted.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use entity::{BrandId, TenantId};

use super::rows;
use crate::engine::Engine;
use crate::error::Result;

/// Each entry is a few dozen bytes; there are as many as the deployment has tenants and brands in use.
#[derive(Debug, Default)]
pub struct Known {
    tenants: RwLock<HashSet<TenantId>>,
    brands: RwLock<HashSet<(TenantId, BrandId)>>,
}

/// Whether the tenant has a row.
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

/// Whether the tenant has such a brand.
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
