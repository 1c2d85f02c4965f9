use entity::{BrandId, TenantId, brand};

use super::{known, rows};
use crate::caller::{Brands, Caller};
use crate::engine::Engine;
use crate::error::{Denied, Error, Field, Result};
use crate::input::Wrong;

/// Returns the brands that the caller holds, ordered by slug; at most 1,000.
pub async fn list_brands(engine: &Engine, caller: &Caller) -> Result<Vec<brand::Model>> {
    rows::find_brands(&engine.db.conn().of(caller.tenant), caller.tenant, &caller.brands).await
}

/// Returns the brands of a tenant, ordered by slug; at most 1,000.
pub async fn brands_of(engine: &Engine, tenant: TenantId) -> Result<Vec<brand::Model>> {
    rows::find_brands(&engine.db.conn().of(tenant), tenant, &Brands::All).await
}

/// Checks that the caller holds every brand of the tenant.
///
/// # Errors
/// [`Error::PermissionDenied`] if there is a brand that the caller does not hold.
pub async fn must_hold_all_brands(engine: &Engine, caller: &Caller) -> Result<()> {
    if caller.brands == Brands::All {
        return Ok(());
    }
    let brands = rows::all_brands(&engine.db.conn().of(caller.tenant), caller.tenant).await?;
    if brands.iter().all(|(_, brand)| caller.brands.hold(*brand)) {
        return Ok(());
    }
    Err(Error::PermissionDenied(Denied::EveryBrand))
}

/// Returns the brand for an upload: the named one, or the only one that the caller holds.
///
/// # Errors
/// [`Error::Invalid`] `required` if no brand is named and the caller does not hold exactly one, `unknown-brand` if the
/// tenant has no such brand; [`Error::PermissionDenied`] if the caller does not hold it.
pub async fn brand_for(engine: &Engine, caller: &Caller, named: Option<BrandId>) -> Result<BrandId> {
    let brand = match (named, &caller.brands) {
        (Some(brand), _) => brand,
        (None, Brands::These(held)) => match held.as_slice() {
            [only] => *only,
            _ => return Err(required()),
        },
        (None, Brands::All) => match list_brands(engine, caller).await?.as_slice() {
            [only] => return Ok(only.id),
            _ => return Err(required()),
        },
    };
    if !caller.brands.hold(brand) {
        return Err(Error::PermissionDenied(Denied::Brand));
    }
    if known::has_brand(engine, caller.tenant, brand).await? {
        return Ok(brand);
    }
    Err(Error::wrong(Field::BrandId, Wrong::UnknownBrand))
}

fn required() -> Error {
    Error::wrong(Field::BrandId, Wrong::BrandRequired)
}
