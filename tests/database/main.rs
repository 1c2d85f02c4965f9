//! What the database alone promises, and the code that leans on it: the schema, its refusals, the plans of the
//! queries, and the state machine under contention. On SQLite and on PostgreSQL.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod kit;
mod actions;
mod actors;
mod chain;
mod dropped;
mod feed;
mod jobs;
mod migrating;
mod migrations;
mod passes;
mod plans;
mod queue;
mod refusals;
mod sums;
mod transitions;
