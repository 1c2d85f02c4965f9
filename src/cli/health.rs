use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::failed;
use crate::settings::Settings;
use crate::start;

/// For container health checks, where there is no curl.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server's address; the one of the settings where not named
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    let server = match (args.server, Settings::load(config)) {
        (Some(server), _) => server,
        (None, Ok(settings)) => start::http_url(&settings.server.host, settings.server.port),
        (None, Err(error)) => return failed(error),
    };
    let url = format!("{}/readyz", server.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => return failed(error),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => ExitCode::SUCCESS,
        Ok(answer) => failed(format_args!("{url} answers {}", answer.status())),
        Err(error) => failed(format_args!("{url} does not answer: {error}")),
    }
}
