//! One file for each command; `pass.rs` and `finding.rs` hold the command `uploads`. Results go to standard output, logs and
//! progress to standard error.

mod audit;
mod completions;
mod duration;
mod finding;
mod health;
mod job;
mod openapi;
mod out;
mod pass;
pub mod push;
mod receipt;
mod serve;
mod session;
mod size;
mod stop;
mod table;
mod tenant;
mod token;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use out::{failed, print, warn};

use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Error, with_causes};
use crate::settings::Settings;
use crate::start;

/// The actor recorded for everything that a command does.
const ACTOR: &Actor = &Actor::Command;

/// A session-driven upload server between your web application and S3.
#[derive(Debug, Parser)]
#[command(name = "quaymaster", version, about, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  quaymaster serve                                 keeps all in ./data, needs nothing else
  quaymaster tenant create acme --brand main
  export QUAYMASTER_TOKEN=$(quaymaster token --tenant acme)
  quaymaster push photos/ --server http://127.0.0.1:8080

Settings come from the built-in defaults, then one TOML file, then the environment.")]
struct Cli {
    /// A TOML file with settings that differ from the defaults
    #[arg(long, global = true, env = "QUAYMASTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Args),
    /// Create tenants and brands, limit tenants, and show their usage
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// List, show and end upload sessions
    #[command(subcommand)]
    Session(session::Command),
    /// Print a token for a tenant
    Token(token::Args),
    /// Run the passes over all uploads by hand, and show runs, schedule and findings
    #[command(subcommand)]
    Uploads(pass::Command),
    /// List, retry and drop background jobs
    #[command(subcommand)]
    Job(job::Command),
    /// Upload files and folders as one batch; resumes where an earlier run stopped
    Push(push::PushArgs),
    /// Verify the recorded history, and list what operators did
    #[command(subcommand)]
    Audit(audit::Command),
    /// Verify the receipt of an upload
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// Print the OpenAPI document
    Openapi(openapi::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Check whether a running server is alive, or ready; exits with 1 if it is not
    Health(health::Args),
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format_args!("cannot start: {}", with_causes(&error))),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args, cli.config.as_deref()).await,
            Command::Tenant(command) => tenant::run(command, cli.config.as_deref()).await,
            Command::Session(command) => session::run(command, cli.config.as_deref()).await,
            Command::Token(args) => token::run(args, cli.config.as_deref()).await,
            Command::Uploads(command) => pass::run(command, cli.config.as_deref()).await,
            Command::Job(command) => job::run(command, cli.config.as_deref()).await,
            Command::Push(args) => push::run(args).await,
            Command::Audit(command) => audit::run(command, cli.config.as_deref()).await,
            Command::Receipt(command) => receipt::run(command, cli.config.as_deref()),
            Command::Openapi(args) => openapi::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::Health(args) => health::run(args, cli.config.as_deref()).await,
        }
    })
}

/// Formats an error for the output of a command, with its causes.
fn said(error: Error) -> String {
    match error {
        Error::Invalid(fields) => fields.iter().map(|(_, wrong)| wrong.to_string()).collect::<Vec<_>>().join("\n"),
        error => with_causes(&error),
    }
}

/// Reads the settings and opens the deployment, also while a server runs. Creates nothing: a command that is run in the
/// wrong folder must fail.
async fn open(config: Option<&Path>) -> Result<Engine, String> {
    start::open(settings(config)?).await.map_err(|error| with_causes(&error))
}

/// Like [`open`], but creates the deployment if there is none.
async fn make(config: Option<&Path>) -> Result<Engine, String> {
    start::make(settings(config)?).await.map_err(|error| with_causes(&error))
}

fn settings(config: Option<&Path>) -> Result<Settings, String> {
    Settings::load(config).map_err(|error| with_causes(&error))
}
