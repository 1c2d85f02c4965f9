//! Does the process live, and can it work? No token.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::Engine;

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, description = "Alive", body = Health)))]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// `ok` or `unavailable`.
    database: &'static str,
    store: &'static str,
}

/// Database and store answer; says which does not.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "Both answer", body = Readiness),
        (status = 503, description = "One does not", body = Readiness),
    ),
)]
pub(super) async fn readyz(engine: Data<Engine>) -> HttpResponse {
    let bucket = engine.storage.bucket().to_owned();
    let (database, store) = tokio::join!(engine.db.ready(), engine.storage.ready(&bucket));
    let word = |fine: bool| if fine { "ok" } else { "unavailable" };
    let readiness = Readiness {
        ready: database.is_ok() && store.is_ok(),
        database: word(database.is_ok()),
        store: word(store.is_ok()),
    };
    let mut answer = if readiness.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(readiness)
}
