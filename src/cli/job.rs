use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use entity::{JobId, JobKind};
use serde_json::json;

use super::table::{lines, or_dash, table, time};
use super::{ACTOR, failed, open, print, said};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::jobs::{self, Filter, Job, State};
use crate::views::JobView;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  quaymaster job list
  quaymaster job list --state dead --json
  quaymaster job retry 0199f3c4-7a10-7c3e-9b1d-5f0e2a6b7c8d
  quaymaster job drop 0199f3c4-7a10-7c3e-9b1d-5f0e2a6b7c8d --json

Jobs that are done are not listed.
A job that failed too often is dead: it stays until it is retried or dropped.")]
pub(super) enum Command {
    /// List waiting, running and dead jobs, newest first
    List {
        /// List only jobs in this state: waiting, running, dead
        #[arg(long, value_name = "STATE", value_parser = state)]
        state: Option<State>,
        /// List only jobs of this kind: promote, promote-by-parts, detect-abandoned, cleanup, orphans, reconcile
        #[arg(long, value_name = "KIND", value_parser = kind)]
        kind: Option<JobKind>,
        /// List at most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
        limit: u64,
        /// List only jobs older than this one: the last one of the previous page
        #[arg(long, value_name = "ID")]
        before: Option<JobId>,
        /// Print a line of JSON for each job
        #[arg(long)]
        json: bool,
    },
    /// Make a dead or waiting job due now, with all its attempts left
    Retry(Which),
    /// Delete a dead or waiting job
    Drop(Which),
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    id: JobId,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Command, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    match answer(&engine, command).await {
        Ok(text) => print(&text),
        Err(Error::NotFound) => failed("there is no such job; jobs that are done are deleted"),
        Err(error) => failed(said(error)),
    }
}

async fn answer(engine: &Engine, command: Command) -> Result<String> {
    let now = engine.clock.now();
    match command {
        Command::List { state, kind, limit, before, json } => {
            let jobs = jobs::list(engine, Filter { kind, state }, before, limit).await?.items;
            Ok(if json { lines(jobs.into_iter().map(|job| JobView::new(job, now))) } else { jobs_table(&jobs, now) })
        }
        Command::Retry(Which { id, json }) => {
            let job = jobs::retry(engine, ACTOR, id).await?;
            Ok(if json { json!(JobView::new(job, now)).to_string() } else { format!("{id} is due now") })
        }
        Command::Drop(Which { id, json }) => {
            jobs::discard(engine, ACTOR, id).await?;
            Ok(if json { json!({ "job_id": id, "dropped": true }).to_string() } else { format!("{id} is dropped") })
        }
    }
}

fn jobs_table(jobs: &[Job], now: DateTime<Utc>) -> String {
    let titles = ["JOB", "KIND", "STATE", "ATTEMPTS>", "DUE", "LAST ERROR"];
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            vec![
                job.id.to_string(),
                job.kind.clone(),
                State::of(job, now).name().to_owned(),
                format!("{}/{}", job.attempts, job.max_attempts),
                time(job.run_at),
                or_dash(job.last_error.as_deref(), str::to_owned),
            ]
        })
        .collect();
    table(&titles, &rows)
}

fn state(name: &str) -> Result<State, String> {
    let known = || State::ALL.map(State::name).join(", ");
    State::named(name).ok_or_else(|| format!("must be one of {}", known()))
}

fn kind(name: &str) -> Result<JobKind, String> {
    let known = || JobKind::ALL.map(JobKind::name).join(", ");
    JobKind::named(name).ok_or_else(|| format!("must be one of {}", known()))
}
