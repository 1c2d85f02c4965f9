//! Quaymaster: a session-driven upload server between a web application and S3.

pub mod caller;
pub mod clock;
pub mod error;
pub mod settings;
pub mod storage;
