//! Quaymaster: a session-driven upload server between a web application and S3.
//!
//! Three doors lead into one engine: a request, a timer and a worker call the same verbs. The modules are listed in the
//! order in which to read them.

pub mod session;

pub mod action;
pub mod asset;
pub mod deployment;
pub mod event;
pub mod finding;
pub mod jobs;
pub mod pass;
pub mod schedule;
pub mod tenant;

pub mod caller;
pub mod clock;
pub mod database;
pub mod engine;
pub mod error;
pub mod page;
pub mod settings;
pub mod storage;

pub mod cli;
pub mod http;

pub mod data_dir;
#[cfg(target_os = "linux")]
mod open_files;
mod outage;
pub mod start;
pub mod telemetry;
mod threads;
mod together;
mod turns;
mod yielding;
