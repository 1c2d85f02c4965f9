//! One file for each command. Results go to standard output, logs and progress to standard error.

mod audit;
mod completions;
mod duration;
mod finding;
mod health;
mod job;
mod openapi;
mod pass;
pub mod push;
mod receipt;
mod serve;
mod session;
mod size;
mod table;
mod tenant;
mod token;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::caller::Actor;
use crate::error::Error;
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
    /// Ask a running server whether it is ready; exits with 1 where it is not
    Health(health::Args),
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format_args!("cannot start: {error}")),
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

/// Says something to a person, on standard error.
fn warn(message: impl Display) {
    use std::io::Write as _;
    // Nobody to tell where standard error is closed.
    let _ = writeln!(std::io::stderr(), "quaymaster: {message}");
}

/// Says what went wrong, for a person, and answers the exit code for it.
fn failed(message: impl Display) -> ExitCode {
    warn(message);
    ExitCode::FAILURE
}

/// An error as a command says it.
fn said(error: Error) -> String {
    match error {
        Error::Invalid(fields) => fields.into_iter().map(|field| field.detail).collect::<Vec<_>>().join("\n"),
        error => error.explained(),
    }
}

/// Writes a result to standard output; a closed pipe (`| head`) is no failure of ours to report.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(format_args!("cannot write to standard output: {error}")),
    }
}

/// Reads the settings and opens what a running server has open too.
async fn open(config: Option<&std::path::Path>) -> Result<crate::engine::Engine, String> {
    let settings = Settings::load(config).map_err(|error| error.to_string())?;
    start::open(settings).await.map_err(|error| error.to_string())
}
