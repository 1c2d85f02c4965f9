//! What is logged, where and how.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::settings::{Log, LogFormat};

/// Logs to standard error from here on.
///
/// # Errors
/// A log level that cannot be read, or a second call.
pub fn init(settings: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let pretty = match settings.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let result = if pretty { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    result.map_err(|error| error.to_string())
}
