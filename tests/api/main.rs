//! The stories: real HTTP, real SQL, a real S3 behind a fault proxy, on both pairs of back ends.
//!
//! `make test-embedded` runs those on SQLite and the embedded store, `make test-postgres` those on PostgreSQL and
//! Garage.
#![allow(clippy::unwrap_used)]

mod kit;

mod activity;
mod admin;
mod background;
mod bad_input;
mod batch;
mod cancel;
mod complete;
mod crash;
mod faults;
mod health;
mod initiate;
mod isolation;
mod list;
mod part_urls;
mod permissions;
mod program;
mod provision;
mod quota;
mod resume;
mod tenants;
