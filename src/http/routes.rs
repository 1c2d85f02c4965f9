//! Every path on one page. A resource answers a wrong method with 405 and `Allow`.

use actix_web::web::{ServiceConfig, get, post, put, resource};

use super::{assets, brands, health, list, openapi, problem, uploads};

pub(super) fn routes(app: &mut ServiceConfig) {
    let resource = |path| resource(path).default_service(actix_web::web::to(problem::method_not_allowed));
    app.service(resource("/app/uploads/initiate").route(post().to(uploads::initiate)))
        .service(resource("/app/uploads/initiate-batch").route(post().to(uploads::initiate_batch)))
        .service(resource("/app/uploads").route(get().to(list::list)))
        .service(resource("/app/uploads/{id}").route(get().to(uploads::find)))
        .service(resource("/app/uploads/{id}/multipart-part-url").route(post().to(uploads::part_url)))
        .service(resource("/app/uploads/{id}/multipart-part-urls").route(post().to(uploads::part_urls)))
        .service(resource("/app/uploads/{id}/resume").route(get().to(uploads::resume)))
        .service(resource("/app/uploads/{id}/activity").route(put().to(uploads::activity)))
        .service(resource("/app/uploads/{id}/cancel").route(post().to(uploads::cancel)))
        .service(resource("/app/uploads/{id}/events").route(get().to(uploads::events)))
        .service(resource("/app/batches/{batch_reference}").route(get().to(list::batch)))
        .service(resource("/app/brands").route(get().to(brands::list)))
        .service(resource("/app/assets/upload/complete").route(post().to(assets::complete)))
        .service(resource("/app/assets/{id}").route(get().to(assets::find)))
        .service(resource("/healthz").route(get().to(health::healthz)))
        .service(resource("/readyz").route(get().to(health::readyz)))
        .service(resource("/openapi.json").route(get().to(openapi::answer)))
        .configure(openapi::browser);
}
