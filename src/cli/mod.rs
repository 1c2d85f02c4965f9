//! One file for each command. Results go to standard output, logs and progress to standard error.

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

/// Recorded as the actor of what a command does.
const ACTOR: &Actor = &Actor::Command;

/// A session-driven upload server between your web application and S3.
#[derive(Debug, Parser)]
#[command(name = "quaymaster", version, about, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  quaymaster serve                                 all in ./data, nothing else needed
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
    /// Make tenants and brands, limit them, and see what they hold
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Look at upload sessions, and end them
    #[command(subcommand)]
    Session(session::Command),
    /// Print a token for a tenant
    Token(token::Args),
    /// Run the passes over all uploads by hand, and see what came of them
    #[command(subcommand)]
    Uploads(pass::Command),
    /// List, retry and drop what waits in the background
    #[command(subcommand)]
    Job(job::Command),
    /// Upload files and folders as one batch; resumes what an earlier run left
    Push(push::PushArgs),
    /// Check the record of what happened, and list what operators did
    #[command(subcommand)]
    Audit(audit::Command),
    /// Check a receipt of an upload
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// Print the OpenAPI document
    Openapi(openapi::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Ask a running server whether it lives, or is ready; exits with 1 where it is not
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

/// An error as a command says it, with its causes.
fn said(error: Error) -> String {
    match error {
        Error::Invalid(fields) => fields.into_iter().map(|field| field.detail).collect::<Vec<_>>().join("\n"),
        error => with_causes(&error),
    }
}

/// Reads the settings and opens what a running server has open too. Makes nothing: a command that is run in the wrong
/// folder has to say so.
async fn open(config: Option<&Path>) -> Result<Engine, String> {
    start::open(settings(config)?).await.map_err(|error| with_causes(&error))
}

/// The same, and makes the deployment where there is none.
async fn make(config: Option<&Path>) -> Result<Engine, String> {
    start::make(settings(config)?).await.map_err(|error| with_causes(&error))
}

fn settings(config: Option<&Path>) -> Result<Settings, String> {
    Settings::load(config).map_err(|error| with_causes(&error))
}
