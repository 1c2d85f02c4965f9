use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::failed;
use crate::address::http_url;
use crate::error::with_causes;

/// Asks /healthz whether the process is alive, for health checks of containers without curl. It does not ask for readiness
/// by default: restarting a container does not bring back an unavailable store.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server's URL; by default that of the settings
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Check that the database and the store are ready, too
    #[arg(long)]
    ready: bool,
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    let server = match (args.server, super::settings(config)) {
        (Some(server), _) => server,
        (None, Ok(settings)) => http_url(&settings.server.host, settings.server.port),
        (None, Err(error)) => return failed(error),
    };
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("{}/{path}", server.trim_end_matches('/'));
    // Without the environment's proxy, which may be meant for the store: the server itself must answer.
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => return failed(with_causes(&error)),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => ExitCode::SUCCESS,
        Ok(answer) => failed(format_args!("{url} answers {}", answer.status())),
        Err(error) => failed(format_args!("{url} does not answer: {}", with_causes(&error.without_url()))),
    }
}
