use std::path::Path;
use std::process::{ExitCode, exit};

use tracing::{error, info, warn};

use super::failed;
use super::stop::Stop;
use crate::clock::Clock;
use crate::error::with_causes;
#[cfg(target_os = "linux")]
use crate::open_files;
use crate::{start, telemetry};

/// Applies pending migrations, then answers requests until SIGTERM or Ctrl-C. Finishes running requests before it exits.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quaymaster serve
  PORT=9090 QUAYMASTER_DATA_DIR=/var/lib/quaymaster quaymaster serve
  DATABASE_URL=postgres://… AWS_BUCKET=uploads JWT_SECRET=… quaymaster serve")]
pub(super) struct Args {}

pub(super) async fn run(_: Args, config: Option<&Path>) -> ExitCode {
    let settings = match super::settings(config) {
        Ok(settings) => settings,
        Err(error) => return failed(error),
    };
    if let Err(error) = telemetry::init(&settings.log) {
        return failed(with_causes(&error));
    }
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    #[cfg(target_os = "linux")]
    open_files::raise(&settings);
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => return failed(format_args!("cannot listen for signals: {error}")),
    };
    // A start that waits, for example for another replica's migration, can be aborted at any point.
    let started = tokio::select! {
        started = Box::pin(start::start(settings, Clock::default())) => started,
        code = stop.asked() => exit(code.into()),
    };
    let mut running = match started {
        Ok(running) => running,
        Err(error) => return failed(with_causes(&error)),
    };
    info!(address = %running.addr, "ready");
    let failure = tokio::select! {
        _ = stop.asked() => None,
        failure = running.failed() => Some(failure),
    };
    if let Some(failure) = failure {
        error!(error = with_causes(&failure), "the server failed");
        return ExitCode::FAILURE;
    }
    info!("stopping: no new requests; running requests finish; a second signal exits at once");
    tokio::select! {
        () = Box::pin(running.stop()) => {}
        code = stop.asked() => exit(code.into()),
    }
    info!("stopped");
    ExitCode::SUCCESS
}
