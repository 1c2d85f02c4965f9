//! The stories: real HTTP, real SQL, a real S3 behind a fault proxy, on both pairs of back ends.
//!
//! `make test-embedded` runs those on SQLite and the embedded store, `make test-postgres` those on PostgreSQL and
//! Garage.
#![allow(clippy::unwrap_used)]
// Verbs within verbs, down to the calls of the SDK.
#![recursion_limit = "256"]

mod kit;

mod abandon;
mod actions;
mod activity;
mod admin;
mod audit;
mod background;
mod bad_input;
mod batch;
mod cancel;
mod cleanup;
mod clock;
mod complete;
mod complete_batch;
mod crash;
mod disk;
mod doors;
mod download;
mod edges;
mod embedded_store;
mod empty_files;
mod events;
mod fairness;
mod faults;
mod findings;
mod growth;
mod health;
mod initiate;
mod isolation;
mod jobs;
mod lies;
mod list;
mod opening;
mod orphans;
mod part_urls;
mod permissions;
mod program;
mod promote;
mod provision;
mod quota;
mod rate_limit;
mod receipt;
mod reconcile;
mod replicas;
mod resume;
mod schedule;
mod shares;
mod silence;
mod statements;
mod streams;
mod tenants;
mod wait;
