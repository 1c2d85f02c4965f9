use std::path::Path;
use std::process::ExitCode;

use chrono::TimeDelta;
use clap::Subcommand;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::duration::duration;
use super::stop::Stop;
use super::table::{lines, or_dash, table, time};
use super::{ACTOR, failed, finding, open, print, said, warn};
use crate::pass::{self, Options, Pass, RunRecord};
use crate::schedule::{self, Status};
use crate::views::{PassView, RunView};
use crate::work;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  quaymaster uploads detect-abandoned
  quaymaster uploads cleanup --dry-run
  quaymaster uploads orphans --older-than 7d --json
  quaymaster uploads runs --pass cleanup --limit 5
  quaymaster uploads schedule
  quaymaster uploads findings

A server runs these passes by its timetable. A pass cannot be started by hand while it runs or waits to run.
If the command dies during a pass, a server runs the pass again. Exits with 1 if anything failed.")]
pub(super) enum Command {
    /// Fail sessions that are abandoned, have expired or could not be opened
    DetectAbandoned(RunArgs),
    /// Remove from the store what failed and cancelled sessions left there
    Cleanup(RunArgs),
    /// Remove objects and uploads from the store that no session explains
    Orphans(RunArgs),
    /// Finish operations that were cut short, and retry promotions that were given up
    Reconcile(RunArgs),
    /// List runs, newest first
    Runs {
        /// List only runs of this pass: detect-abandoned, cleanup, orphans, reconcile
        #[arg(long, value_name = "NAME", value_parser = named)]
        pass: Option<Pass>,
        /// List at most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=4_000))]
        limit: u64,
        /// Print a line of JSON for each run
        #[arg(long)]
        json: bool,
    },
    /// Show when each pass runs by the timetable, in UTC, and the outcome of its last run
    Schedule {
        /// Print a line of JSON for each pass
        #[arg(long)]
        json: bool,
    },
    /// List inconsistencies between rows and store that wait for an operator or the next run
    Findings(finding::Args),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples, the same for each pass:
  quaymaster uploads cleanup --dry-run
  quaymaster uploads cleanup --older-than 7d --json

--json prints pass, found, done, failed, skipped, dry_run, details, error, and the run's times.")]
pub(super) struct RunArgs {
    /// Look and report, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Use this age instead of the configured one: 90s, 15m, 24h, 7d; 0s takes everything
    #[arg(long, value_name = "DURATION", value_parser = age)]
    older_than: Option<TimeDelta>,
    /// Print the run as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Command, config: Option<&Path>) -> ExitCode {
    match command {
        Command::DetectAbandoned(args) => run_one(Pass::DetectAbandoned, args, config).await,
        Command::Cleanup(args) => run_one(Pass::Cleanup, args, config).await,
        Command::Orphans(args) => run_one(Pass::Orphans, args, config).await,
        Command::Reconcile(args) => run_one(Pass::Reconcile, args, config).await,
        Command::Runs { pass, limit, json } => list(pass, limit, json, config).await,
        Command::Schedule { json } => timetable(json, config).await,
        Command::Findings(args) => finding::run(args, config).await,
    }
}

async fn run_one(pass: Pass, args: RunArgs, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    if args.older_than.is_some_and(|span| span.is_zero()) {
        warn("--older-than 0s: takes uploads of any age, even those that are being sent now");
    }
    let options = Options { dry_run: args.dry_run, older_than: args.older_than };
    let stop = CancellationToken::new();
    let listening = match Stop::listen() {
        Ok(asked) => tokio::spawn(stop_when(asked, stop.clone())),
        Err(error) => return failed(format_args!("cannot listen for signals: {error}")),
    };
    let ended = Box::pin(pass::by_hand(&engine, work::pass, pass, options, ACTOR, &stop)).await;
    listening.abort();
    match ended {
        Ok(Some(record)) => report(record, args.json),
        Ok(None) => failed(format_args!("{} is running, or waits to run; `quaymaster job list` shows it", pass.name())),
        Err(error) => failed(said(error)),
    }
}

/// On the first signal, the pass starts no more rows, and what it has done is recorded. On the second signal, the process
/// exits.
async fn stop_when(mut asked: Stop, stop: CancellationToken) {
    asked.asked().await;
    warn("stopping; a second signal exits at once");
    stop.cancel();
    std::process::exit(asked.asked().await.into());
}

fn report(record: RunRecord, as_json: bool) -> ExitCode {
    let (error, failures) = (record.error.clone(), record.failed);
    let printed = print(&if as_json { json!(RunView::from(record)).to_string() } else { text(&record) });
    if let Some(error) = error {
        return failed(error);
    }
    if failures > 0 {
        return failed(format_args!("{failures} failed; the next run tries them again"));
    }
    printed
}

async fn list(pass: Option<Pass>, limit: u64, as_json: bool, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    match pass::runs(&engine, pass, limit).await {
        Ok(runs) if as_json => print(&lines(runs.into_iter().map(RunView::from))),
        Ok(runs) => print(&runs_table(&runs)),
        Err(error) => failed(said(error)),
    }
}

async fn timetable(as_json: bool, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    match schedule::status(&engine).await {
        Ok(passes) if as_json => print(&lines(passes.into_iter().map(PassView::from))),
        Ok(passes) => print(&timetable_table(&passes)),
        Err(error) => failed(said(error)),
    }
}

fn text(record: &RunRecord) -> String {
    let dry = if record.dry_run { " (dry run: nothing was changed)" } else { "" };
    let mut lines = vec![format!("{}{dry}", record.pass)];
    let counts =
        [("found", record.found), ("done", record.done), ("failed", record.failed), ("skipped", record.skipped)];
    lines.extend(counts.map(|(name, count)| format!("  {name:<8} {count:>9}")));
    if let Some(details) = record.details.as_object() {
        lines.extend(details.iter().map(|(name, value)| format!("  {name}: {}", plain(value))));
    }
    lines.join("\n")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn runs_table(runs: &[RunRecord]) -> String {
    let titles = ["STARTED", "PASS", "ACTOR", "FOUND>", "DONE>", "FAILED>", "SKIPPED>", "ENDED"];
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let words = [time(run.started_at), run.pass.clone(), run.actor.clone()];
            words.into_iter().chain(outcome(run)).collect()
        })
        .collect();
    table(&titles, &rows)
}

/// Returns the counts found, done, failed and skipped, and how the run ended.
fn outcome(run: &RunRecord) -> [String; 5] {
    let ended = match (&run.error, run.ended_at) {
        (Some(error), _) => error,
        (None, Some(_)) if run.dry_run => "well (dry run)",
        (None, Some(_)) => "well",
        (None, None) => "not yet",
    };
    [run.found.to_string(), run.done.to_string(), run.failed.to_string(), run.skipped.to_string(), ended.to_owned()]
}

fn timetable_table(passes: &[Status]) -> String {
    let titles =
        ["PASS", "CRON", "LAST SLOT", "NEXT SLOT", "LAST RUN", "FOUND>", "DONE>", "FAILED>", "SKIPPED>", "ENDED"];
    let rows: Vec<_> = passes
        .iter()
        .map(|status| {
            let words = [
                status.pass.name().to_owned(),
                status.cron.clone().unwrap_or_else(|| "never".to_owned()),
                or_dash(status.last_slot, time),
                or_dash(status.next_slot, time),
                or_dash(status.last_run.as_ref(), |run| time(run.started_at)),
            ];
            let none = || std::array::from_fn(|_| "-".to_owned());
            words.into_iter().chain(status.last_run.as_ref().map_or_else(none, outcome)).collect()
        })
        .collect();
    table(&titles, &rows)
}

fn named(name: &str) -> Result<Pass, String> {
    let known = || Pass::ALL.map(Pass::name).join(", ");
    Pass::named(name).ok_or_else(|| format!("must be one of {}", known()))
}

fn age(text: &str) -> Result<TimeDelta, String> {
    duration(text).and_then(|age| TimeDelta::from_std(age).map_err(|error| error.to_string()))
}
