use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Subcommand;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{failed, open, print, warn};
use crate::pass::{self, Options, Pass, RunRecord};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quaymaster uploads detect-abandoned
  quaymaster uploads cleanup --dry-run
  quaymaster uploads orphans --older-than 7d --json
  quaymaster uploads runs --pass cleanup --limit 5

A server runs these by its timetable. By hand, a pass is refused while it runs anywhere.
If the command dies over it, a server finishes it. Exits with 1 where anything failed.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fail the sessions that nobody goes on with
    DetectAbandoned(RunArgs),
    /// Remove from the store what failed and cancelled sessions left there
    Cleanup(RunArgs),
    /// Remove from the store what no session explains
    Orphans(RunArgs),
    /// Finish what was asked for and cut short
    Reconcile(RunArgs),
    /// List runs, newest first
    Runs {
        /// Only of this pass: detect-abandoned, cleanup, orphans, reconcile
        #[arg(long, value_name = "NAME", value_parser = named)]
        pass: Option<Pass>,
        /// At most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=4_000))]
        limit: u64,
        /// An array of objects instead of a table
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples, the same for each pass:
  quaymaster uploads cleanup --dry-run
  quaymaster uploads cleanup --older-than 7d --json

--json prints pass, found, done, failed, skipped, dry_run, details, error, and the run's times.")]
struct RunArgs {
    /// Look and report, change nothing
    #[arg(long)]
    dry_run: bool,
    /// In place of the age that is set: 90s, 15m, 24h, 7d; 0s is everything at once
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<TimeDelta>,
    /// One object instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    match args.command {
        Command::DetectAbandoned(args) => run_one(Pass::DetectAbandoned, args, config).await,
        Command::Cleanup(args) => run_one(Pass::Cleanup, args, config).await,
        Command::Orphans(args) => run_one(Pass::Orphans, args, config).await,
        Command::Reconcile(args) => run_one(Pass::Reconcile, args, config).await,
        Command::Runs { pass, limit, json } => list(pass, limit, json, config).await,
    }
}

async fn run_one(pass: Pass, args: RunArgs, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    if args.older_than.is_some_and(|span| span.is_zero()) {
        warn("--older-than 0s: nothing is too young, not even what somebody is sending now");
    }
    let options = Options { dry_run: args.dry_run, older_than: args.older_than };
    let stop = CancellationToken::new();
    let listening = stop_on_interrupt(&stop);
    let ended = pass::by_hand(&engine, pass, options, "cli", &stop).await;
    listening.abort();
    match ended {
        Ok(Some(record)) => report(&record, args.json),
        Ok(None) => failed(format_args!("{} is running, or waits to run; `quaymaster job list` shows it", pass.name())),
        Err(error) => failed(error.explained()),
    }
}

/// Ctrl-C: the pass begins with no more rows, and what it has done is recorded. A second one ends the process as ever.
fn stop_on_interrupt(stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let stop = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            warn("stopping; once more to give up");
            stop.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    })
}

fn report(record: &RunRecord, as_json: bool) -> ExitCode {
    let printed = print(&if as_json { object(record).to_string() } else { text(record) });
    if let Some(error) = &record.error {
        return failed(error);
    }
    if record.failed > 0 {
        return failed(format_args!("{} failed; the next run tries them again", record.failed));
    }
    printed
}

async fn list(pass: Option<Pass>, limit: u64, as_json: bool, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    match pass::runs(&engine, pass, limit).await {
        Ok(runs) if as_json => print(&Value::from(runs.iter().map(object).collect::<Vec<_>>()).to_string()),
        Ok(runs) => print(&table(&runs)),
        Err(error) => failed(error.explained()),
    }
}

fn object(record: &RunRecord) -> Value {
    json!({
        "run_id": record.id,
        "pass": record.pass,
        "slot": record.slot.map(time),
        "actor": record.actor,
        "dry_run": record.dry_run,
        "older_than_secs": record.older_than_secs,
        "started_at": time(record.started_at),
        "ended_at": record.ended_at.map(time),
        "found": record.found,
        "done": record.done,
        "failed": record.failed,
        "skipped": record.skipped,
        "error": record.error,
        "details": record.details,
    })
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

fn table(runs: &[RunRecord]) -> String {
    let mut lines = vec![format!(
        "{:<20}  {:<16}  {:<10}  {:>8}  {:>8}  {:>8}  {:>8}  {}",
        "started", "pass", "actor", "found", "done", "failed", "skipped", "ended"
    )];
    for run in runs {
        let ended = match (&run.error, run.ended_at) {
            (Some(error), _) => error.clone(),
            (None, Some(_)) if run.dry_run => "well (dry run)".to_owned(),
            (None, Some(_)) => "well".to_owned(),
            (None, None) => "not yet".to_owned(),
        };
        lines.push(format!(
            "{:<20}  {:<16}  {:<10}  {:>8}  {:>8}  {:>8}  {:>8}  {ended}",
            run.started_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            run.pass,
            run.actor,
            run.found,
            run.done,
            run.failed,
            run.skipped
        ));
    }
    lines.join("\n")
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn named(name: &str) -> Result<Pass, String> {
    let known = || Pass::ALL.map(Pass::name).join(", ");
    Pass::named(name).ok_or_else(|| format!("not one of {}", known()))
}

/// Up to a hundred years, in whole seconds.
fn duration(text: &str) -> Result<TimeDelta, String> {
    let wrong = || "such as 90s, 15m, 24h or 7d, up to 36525d".to_owned();
    let span: Duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    let secs = i64::try_from(span.as_secs()).ok().filter(|secs| *secs <= 3_155_760_000).ok_or_else(wrong)?;
    if span.subsec_nanos() > 0 {
        return Err("whole seconds".to_owned());
    }
    TimeDelta::try_seconds(secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, secs) in
            [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("1h 30m", 5_400), ("1.5h", 5_400)]
        {
            assert_eq!(duration(text).unwrap(), TimeDelta::seconds(secs), "{text}");
        }
        for wrong in ["", "7", "d", "-1h", "500ms", "99999999999d", "300y"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
