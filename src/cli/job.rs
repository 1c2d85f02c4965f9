use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use entity::JobId;
use serde_json::{Value, json};

use super::{failed, open, print};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::jobs::{self, Filter, Job, Kind, State};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quaymaster job list
  quaymaster job list --state dead --json
  quaymaster job retry 0199f3c4-7a10-7c3e-9b1d-5f0e2a6b7c8d
  quaymaster job drop 0199f3c4-7a10-7c3e-9b1d-5f0e2a6b7c8d

A job that is done is in no list.
One that has failed too often is dead: it stays until it is retried or dropped.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what waits, runs or is dead, newest first
    List {
        /// Only these: waiting, running, dead
        #[arg(long, value_name = "STATE", value_parser = state)]
        state: Option<State>,
        /// Only of this kind: promote, detect-abandoned, cleanup, orphans, reconcile
        #[arg(long, value_name = "KIND", value_parser = kind)]
        kind: Option<Kind>,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
        limit: u64,
        /// Older than this job: the last one of the page before
        #[arg(long, value_name = "ID")]
        before: Option<JobId>,
        /// An array of objects instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Have a dead job, or one that waits, done now, as if it had never failed
    Retry { id: JobId },
    /// Delete a job that nobody shall do
    Drop { id: JobId },
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    match command(&engine, args.command).await {
        Ok(text) => print(&text),
        Err(Error::NotFound) => failed("there is no such job; one that is done is gone"),
        Err(error) => failed(error.explained()),
    }
}

async fn command(engine: &Engine, command: Command) -> Result<String> {
    let now = engine.clock.now();
    match command {
        Command::List { state, kind, limit, before, json } => {
            let jobs = jobs::list(engine, Filter { kind, state }, before, limit).await?.jobs;
            Ok(if json {
                Value::from(jobs.iter().map(|job| object(job, now)).collect::<Vec<_>>()).to_string()
            } else {
                table(&jobs, now)
            })
        }
        Command::Retry { id } => jobs::retry(engine, id).await.map(|job| format!("{} is due now", job.id)),
        Command::Drop { id } => jobs::discard(engine, id).await.map(|()| format!("{id} is dropped")),
    }
}

fn object(job: &Job, now: DateTime<Utc>) -> Value {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
    json!({
        "job_id": job.id,
        "kind": job.kind,
        "state": State::of(job, now).name(),
        "payload": job.payload,
        "priority": job.priority,
        "dedupe_key": job.dedupe_key,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "run_at": time(job.run_at),
        "last_error": job.last_error,
        "dead_at": job.dead_at.map(time),
        "created_at": time(job.created_at),
    })
}

fn table(jobs: &[Job], now: DateTime<Utc>) -> String {
    let mut lines = vec![format!(
        "{:<36}  {:<16}  {:<8}  {:>8}  {:<20}  {}",
        "job", "kind", "state", "attempts", "due", "last error"
    )];
    for job in jobs {
        lines.push(format!(
            "{:<36}  {:<16}  {:<8}  {:>8}  {:<20}  {}",
            job.id.to_string(),
            job.kind,
            State::of(job, now).name(),
            format!("{}/{}", job.attempts, job.max_attempts),
            job.run_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            job.last_error.as_deref().unwrap_or("-").replace(['\n', '\r'], " ")
        ));
    }
    lines.join("\n")
}

fn state(name: &str) -> Result<State, String> {
    let known = || State::ALL.map(State::name).join(", ");
    State::named(name).ok_or_else(|| format!("not one of {}", known()))
}

fn kind(name: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.map(Kind::name).join(", ");
    Kind::named(name).ok_or_else(|| format!("not one of {}", known()))
}
