//! `GET /app/brands`.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::caller::Caller;
use crate::engine::Engine;
use crate::http::caller::known_tenant;
use crate::http::problem::Answer;
use crate::tenant;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Brand)]
pub(crate) struct BrandView {
    brand_id: Uuid,
    slug: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Brands)]
pub(crate) struct BrandsView {
    /// Sorted by slug.
    data: Vec<BrandView>,
}

/// Lists the brands that the caller holds. Needs a token, but no permission.
#[utoipa::path(
    get, path = "/app/brands", tag = "brands",
    responses((status = 200, description = "Sorted by slug", body = BrandsView)),
    extensions(("x-permission" = json!(null))),
)]
pub(crate) async fn list(engine: Data<Engine>, caller: Caller) -> Answer {
    known_tenant(&engine, &caller).await?;
    let brands = tenant::list_brands(&engine, &caller).await?;
    let data = brands.into_iter().map(|brand| BrandView { brand_id: brand.id.0, slug: brand.slug }).collect();
    Ok(HttpResponse::Ok().json(BrandsView { data }))
}
