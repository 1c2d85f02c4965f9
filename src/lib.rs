//! Quaymaster: a session-driven upload server between a web application and S3.
//!
//! Three doors lead into one engine: a request, a timer and a worker call the same verbs. The modules are listed in the
//! order in which to read them; which may use which is in `tests/tidy.rs`.

// The nouns, and what each of them can do.
pub mod asset;
pub mod deployment;
pub mod finding;
pub mod session;
pub mod tenant;

// What happened: the history of sessions, the actions of operators, their order and their proof.
pub mod action;
pub mod audit;
pub mod event;
pub mod feed;

// Work in the background: the mechanism, and the tables of what is done.
pub mod jobs;
pub mod pass;
pub mod schedule;
pub mod work;

// The doors.
pub mod cli;
pub mod http;
pub mod start;
pub mod token;
mod views;

// What every verb needs.
pub mod caller;
pub mod engine;
pub mod error;
pub mod input;

// The database and the store.
pub mod database;
pub mod storage;

// The ground: it knows nothing of sessions.
mod address;
pub mod clock;
pub mod data_dir;
pub mod keys;
#[cfg(target_os = "linux")]
mod open_files;
mod outage;
pub mod page;
pub mod settings;
pub mod telemetry;
mod threads;
pub mod timetable;
mod together;
mod turns;
mod yielding;
