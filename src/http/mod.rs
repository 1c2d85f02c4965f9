//! The web door: the only folder that names actix_web. It parses, authorizes, calls one verb and renders the outcome.
//!
//! `serve.rs` listens. A request passes `connection.rs` (limits of the connection), `in_flight.rs`, `middleware.rs`,
//! `framing.rs` and `fair.rs`, and arrives at a handler: those of the native API are in `native/`. Handlers read their input
//! with `caller.rs`, `path.rs`, `query.rs`, `idempotency_key.rs` and `body.rs`, whose errors `fields.rs` collects, and
//! `problem.rs` renders errors.

mod body;
mod caller;
mod client_address;
mod connection;
mod door;
mod fair;
mod fields;
mod framing;
mod heavy_work;
mod idempotency_key;
mod in_flight;
mod middleware;
mod native;
mod path;
mod problem;
mod query;
mod rate_limit;
mod rules;
mod serve;
mod socket;
mod unambiguous;

pub use actix_web::dev::ServerHandle;
pub use native::openapi_document;
pub use serve::StartError;
pub(crate) use serve::serve;
