//! Liveness and readiness. Neither needs a token.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use crate::deployment;
use crate::engine::Engine;
use crate::http::door::Door;

/// Liveness: answers while the process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, description = "Alive", body = Health)))]
pub(crate) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// `ok`, `unavailable`, or `damaged`: a part of the database's own files cannot be read.
    database: &'static str,
    /// `ok` or `unavailable`.
    store: &'static str,
}

fn word(health: deployment::Health) -> &'static str {
    match health {
        deployment::Health::Well => "ok",
        deployment::Health::Unavailable => "unavailable",
        deployment::Health::Damaged => "damaged",
    }
}

/// Readiness: whether the database and the store can serve requests, and which of them cannot.
///
/// The database must accept a write, and so must the embedded store; any other store must answer for its bucket. The result
/// is kept for three seconds, for all callers.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "Both are ready", body = Readiness),
        (status = 503, description = "One of them is not ready", body = Readiness),
    ),
)]
pub(crate) async fn readyz(engine: Data<Engine>, door: Data<Door>) -> HttpResponse {
    let found = deployment::ready(&engine, &door.readiness).await;
    let readiness = Readiness { ready: found.is_ready(), database: word(found.database), store: word(found.store) };
    let mut answer = if readiness.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(readiness)
}
