use std::process::ExitCode;

use super::{failed, print};
use crate::error::with_causes;
use crate::http;

/// Prints the document that a running server returns at /openapi.json.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  quaymaster openapi > openapi.json")]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> ExitCode {
    match http::openapi_document().to_pretty_json() {
        Ok(document) => print(&document),
        Err(error) => failed(with_causes(&error)),
    }
}
