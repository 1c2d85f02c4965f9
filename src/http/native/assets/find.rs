use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use crate::asset;
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::path::id_of;
use crate::http::problem::Answer;
use crate::views::AssetView;

/// Returns the asset, to every caller who holds its brand.
#[utoipa::path(
    get, path = "/app/assets/{id}", tag = "assets", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "The asset", body = AssetView)),
    extensions(("x-permission" = json!("assets.view"))),
)]
pub(crate) async fn find(engine: Data<Engine>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::AssetsView).await?;
    let asset = asset::find(&engine, &caller, id_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(AssetView::from(asset)))
}
