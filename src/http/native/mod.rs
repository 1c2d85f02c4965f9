//! The native API, `/app` and `/admin`: one file for each verb, named like it. `routes.rs` mounts them, `openapi.rs` is their
//! contract.

mod admin;
mod assets;
mod brands;
mod events;
mod health;
mod keys;
mod metrics;
mod openapi;
mod routes;
mod uploads;

pub use openapi::document as openapi_document;
pub(super) use routes::routes;
