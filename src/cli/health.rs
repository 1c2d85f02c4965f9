use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::failed;
use crate::error::with_causes;
use crate::start;

/// Asks /healthz, whether the process lives, for container health checks, where there is no curl: a container that is
/// restarted because the store is away would not bring the store back.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server's address; the one of the settings where not named
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Whether it can work as well: database and store answer
    #[arg(long)]
    ready: bool,
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    let server = match (args.server, super::settings(config)) {
        (Some(server), _) => server,
        (None, Ok(settings)) => start::http_url(&settings.server.host, settings.server.port),
        (None, Err(error)) => return failed(error),
    };
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("{}/{path}", server.trim_end_matches('/'));
    // Of the health of the server a proxy of the environment, which may be for the store, knows nothing.
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
