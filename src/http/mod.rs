//! The web door: the only folder that names actix_web. It parses, authorizes, calls one verb and renders the outcome.

pub(crate) mod admin;
mod assets;
pub mod auth;
mod body;
mod brands;
mod caller;
mod claims;
mod client_address;
mod complete_batch;
mod door;
mod events;
mod fields;
mod health;
mod idempotency_key;
mod jwks;
pub(crate) mod list;
mod metrics;
mod middleware;
mod openapi;
mod problem;
mod query;
mod rate_limit;
mod receipts;
mod routes;
mod rules;
mod socket;
mod uploads;
pub(crate) mod views;
mod wait;

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

pub use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use entity::SessionId;
use tokio::task::JoinHandle;

pub use openapi::document as openapi_document;

use door::Door;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::{start, tenant};

/// Whether the caller may do this, and their tenant is one of ours.
///
/// # Errors
/// [`Error::PermissionDenied`].
async fn admit(engine: &Engine, caller: &Caller, permission: Permission) -> Result<()> {
    caller.must(permission)?;
    known_tenant(engine, caller).await
}

async fn known_tenant(engine: &Engine, caller: &Caller) -> Result<()> {
    if tenant::exists(engine, caller.tenant).await? {
        return Ok(());
    }
    Err(Error::PermissionDenied("the token's tenant is not known here".to_owned()))
}

/// An id in a path. What is not an id names nothing.
///
/// # Errors
/// [`Error::NotFound`].
fn id_of<T: FromStr>(path: &str) -> Result<T> {
    path.parse().map_err(|_| Error::NotFound)
}

/// The session that a path names; from here on, the request's span names it too.
///
/// # Errors
/// [`Error::NotFound`].
fn session_of(path: &str) -> Result<SessionId> {
    let id = id_of(path)?;
    middleware::name_session(id);
    Ok(id)
}

/// Listens, and answers until the handle says stop.
///
/// # Errors
/// The address is taken or not ours; the tokens' settings cannot be used.
pub(crate) async fn serve(
    engine: &Engine,
) -> Result<(SocketAddr, JoinHandle<io::Result<()>>, ServerHandle), start::Error> {
    let settings = &engine.settings.server;
    let door = Data::new(Door::new(&engine.settings, engine.clock.clone())?);
    let engine = Data::new(engine.clone());
    let listen = start::resolve(&settings.host, settings.port).await?;
    let failed = |error| start::Error::Listen(listen.to_string(), error);
    let server = HttpServer::new({
        let engine = engine.clone();
        move || {
            App::new()
                .app_data(engine.clone())
                .app_data(door.clone())
                // Read from below: the last one is the outermost.
                .wrap(from_fn(middleware::catch_panic))
                .wrap(middleware::cors(&engine.settings.cors))
                .wrap(from_fn(middleware::observe))
                .configure(routes::routes)
                .default_service(problem::unknown_path())
        }
    })
    .on_connect(socket::bound_writes(Duration::from_secs(settings.write_timeout_secs)))
    .workers(settings.worker_threads())
    .max_connections(settings.max_connections)
    .client_request_timeout(Duration::from_secs(settings.head_timeout_secs))
    .shutdown_timeout(settings.shutdown_grace_secs)
    .disable_signals()
    .bind(listen)
    .map_err(failed)?;
    let addr = server.addrs().first().copied().unwrap_or(listen);
    let server = server.run();
    let handle = server.handle();
    Ok((addr, tokio::spawn(server), handle))
}
