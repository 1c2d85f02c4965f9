//! Does the process live, and can it work? No token.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use crate::deployment;
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
    /// `ok`, `unavailable`, or `damaged`: a place in its own files cannot be read.
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

/// Database and store do what a request needs; says which does not.
///
/// The database takes a write, and so does the embedded store; any other store answers for its bucket. What was found is
/// kept for three seconds, whoever asks.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "Both do", body = Readiness),
        (status = 503, description = "One does not", body = Readiness),
    ),
)]
pub(super) async fn readyz(engine: Data<Engine>) -> HttpResponse {
    let found = deployment::ready(&engine).await;
    let readiness = Readiness { ready: found.is_ready(), database: word(found.database), store: word(found.store) };
    let mut answer = if readiness.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(readiness)
}
