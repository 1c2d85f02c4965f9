use entity::AssetId;
use tracing::instrument;

use super::{Asset, rows};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Returns the asset if the caller holds its brand.
///
/// # Errors
/// [`Error::NotFound`], alike for an unknown id, an asset of another tenant, and a brand that the caller does not hold.
#[instrument(name = "asset.find", skip_all, fields(asset.id = %id, tenant.id = %caller.tenant))]
pub async fn find(engine: &Engine, caller: &Caller, id: AssetId) -> Result<Asset> {
    let asset = rows::find(&engine.db.conn().of(caller.tenant), caller.tenant, id).await?.ok_or(Error::NotFound)?;
    if caller.brands.hold(asset.brand_id) { Ok(asset) } else { Err(Error::NotFound) }
}
