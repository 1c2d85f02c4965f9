//! Every path on one page, with the methods that it takes.

use actix_web::web::{ServiceConfig, delete, get, patch, post, put};
use actix_web::{Resource, web};

use super::admin::{self, actions, background, findings, tenants};
use super::problem;
use super::{assets, brands, complete_batch, events, health, list, metrics, openapi, receipts, uploads, wait};

pub(super) fn routes(app: &mut ServiceConfig) {
    app.service(resource("/app/uploads", &["GET"]).route(get().to(list::list)))
        .service(resource("/app/uploads/initiate", &["POST"]).route(post().to(uploads::initiate)))
        .service(resource("/app/uploads/initiate-batch", &["POST"]).route(post().to(uploads::initiate_batch)))
        .service(resource("/app/uploads/{id}", &["GET"]).route(get().to(uploads::find)))
        .service(resource("/app/uploads/{id}/multipart-part-url", &["POST"]).route(post().to(uploads::part_url)))
        .service(resource("/app/uploads/{id}/multipart-part-urls", &["POST"]).route(post().to(uploads::part_urls)))
        .service(resource("/app/uploads/{id}/resume", &["GET"]).route(get().to(uploads::resume)))
        .service(resource("/app/uploads/{id}/activity", &["PUT"]).route(put().to(uploads::activity)))
        .service(resource("/app/uploads/{id}/cancel", &["POST"]).route(post().to(uploads::cancel)))
        .service(resource("/app/uploads/{id}/events", &["GET"]).route(get().to(uploads::events)))
        .service(resource("/app/uploads/{id}/wait", &["GET"]).route(get().to(wait::wait)))
        .service(resource("/app/uploads/{id}/receipt", &["GET"]).route(get().to(receipts::receipt)))
        .service(resource("/app/events", &["GET"]).route(get().to(events::stream)))
        .service(resource("/app/batches/{batch_reference}", &["GET"]).route(get().to(list::batch)))
        .service(resource("/app/brands", &["GET"]).route(get().to(brands::list)))
        .service(resource("/app/assets/upload/complete", &["POST"]).route(post().to(assets::complete)))
        .service(
            resource("/app/assets/upload/complete-batch", &["POST"]).route(post().to(complete_batch::complete_batch)),
        )
        .service(resource("/app/assets/{id}", &["GET"]).route(get().to(assets::find)))
        .service(resource("/app/assets/{id}/download", &["GET"]).route(get().to(assets::download)))
        .service(resource("/admin/uploads", &["GET"]).route(get().to(admin::uploads::list)))
        .service(resource("/admin/uploads/{id}", &["GET"]).route(get().to(admin::uploads::inspect)))
        .service(resource("/admin/uploads/{id}/fail", &["POST"]).route(post().to(admin::uploads::fail)))
        .service(resource("/admin/uploads/{id}/cancel", &["POST"]).route(post().to(admin::uploads::cancel)))
        .service(
            resource("/admin/tenants", &["GET", "POST"])
                .route(get().to(tenants::list))
                .route(post().to(tenants::create)),
        )
        .service(
            resource("/admin/tenants/{slug}", &["GET", "PATCH"])
                .route(get().to(tenants::find))
                .route(patch().to(tenants::change)),
        )
        .service(resource("/admin/tenants/{slug}/brands", &["POST"]).route(post().to(tenants::add_brands)))
        .service(resource("/admin/tenants/{slug}/usage", &["GET"]).route(get().to(tenants::usage)))
        .service(resource("/admin/passes", &["GET"]).route(get().to(background::passes)))
        .service(resource("/admin/passes/{name}/run", &["POST"]).route(post().to(background::run)))
        .service(resource("/admin/runs", &["GET"]).route(get().to(background::runs)))
        .service(resource("/admin/jobs", &["GET"]).route(get().to(background::jobs)))
        .service(resource("/admin/jobs/{id}", &["DELETE"]).route(delete().to(background::discard)))
        .service(resource("/admin/jobs/{id}/retry", &["POST"]).route(post().to(background::retry)))
        .service(resource("/admin/findings", &["GET"]).route(get().to(findings::list)))
        .service(resource("/admin/actions", &["GET"]).route(get().to(actions::list)))
        .service(resource("/admin/metrics", &["GET"]).route(get().to(metrics::metrics)))
        .service(resource("/.well-known/quaymaster-keys.json", &["GET"]).route(get().to(receipts::keys)))
        .service(resource("/healthz", &["GET"]).route(get().to(health::healthz)))
        .service(resource("/readyz", &["GET"]).route(get().to(health::readyz)))
        .service(resource("/openapi.json", &["GET"]).route(get().to(openapi::answer)))
        .configure(openapi::browser);
}

/// A path that answers any other method with 405, and names the methods that it takes in `Allow` (RFC 9110, section
/// 15.5.6).
fn resource(path: &str, allow: &'static [&'static str]) -> Resource {
    web::resource(path).default_service(problem::only(allow))
}
