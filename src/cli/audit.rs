use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use entity::{SessionId, TenantId};

use super::table::{lines, or_dash, table, time};
use super::tenant::named;
use super::{failed, open, print, said, warn};
use crate::action::{self, Action};
use crate::audit::{self, Scope, VerifyReport};
use crate::engine::Engine;
use crate::views::ActionView;

/// Interval between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify that the recorded history is as the server wrote it; exits with 1 if it is not
    #[command(after_help = "\
Examples:
  quaymaster audit verify
  quaymaster audit verify --tenant acme --json

Without --tenant and --session it also finds whole sessions that were removed, and verifies operators' actions.
A server may run at the same time.")]
    Verify {
        /// Verify only this tenant's sessions: its slug or id
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// Verify only this session
        #[arg(long, value_name = "ID")]
        session: Option<SessionId>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// List what operators did to tenants, jobs and passes, newest first; `session show` lists what they did to an upload
    #[command(after_help = "\
Examples:
  quaymaster audit log
  quaymaster audit log --tenant acme --json | jq 'select(.action == \"tenant.limit\")'")]
    Log {
        /// List only actions on this tenant: its slug or id
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// List at most this many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
        limit: u64,
        /// List only actions older than this one: the last one of the previous page
        #[arg(long, value_name = "SEQ")]
        before: Option<i64>,
        /// Print a line of JSON for each action
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: Command, config: Option<&Path>) -> ExitCode {
    match command {
        Command::Verify { tenant, session, json } => match verify(tenant.as_deref(), session, config).await {
            Ok(report) => tell(&report, json),
            Err(error) => failed(error),
        },
        Command::Log { tenant, limit, before, json } => match log(tenant.as_deref(), before, limit, config).await {
            Ok(actions) if json => print(&lines(actions.into_iter().map(ActionView::from))),
            Ok(actions) => print(&actions_table(&actions)),
            Err(error) => failed(error),
        },
    }
}

async fn log(
    slug: Option<&str>,
    before: Option<i64>,
    limit: u64,
    config: Option<&Path>,
) -> Result<Vec<Action>, String> {
    let engine = open(config).await?;
    let tenant = id_of(&engine, slug).await?;
    Ok(action::list(&engine, tenant, before, limit).await.map_err(said)?.items)
}

fn actions_table(actions: &[Action]) -> String {
    let rows: Vec<_> = actions
        .iter()
        .map(|action| {
            vec![
                action.seq.to_string(),
                time(action.at),
                action.actor.clone(),
                action.action.clone(),
                or_dash(action.tenant_id, |tenant| tenant.to_string()),
                action.details.to_string(),
            ]
        })
        .collect();
    table(&["SEQ>", "AT", "ACTOR", "ACTION", "TENANT", "DETAILS"], &rows)
}

async fn id_of(engine: &Engine, slug: Option<&str>) -> Result<Option<TenantId>, String> {
    match slug {
        None => Ok(None),
        Some(slug) => Ok(Some(named(engine, slug).await?.id)),
    }
}

async fn verify(slug: Option<&str>, session: Option<SessionId>, config: Option<&Path>) -> Result<VerifyReport, String> {
    let engine = open(config).await?;
    let tenant = id_of(&engine, slug).await?;
    let mut told = Instant::now();
    let progress = |report: &VerifyReport| {
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            warn(format_args!(
                "{} sessions, {} events, {} findings so far",
                report.sessions, report.events, report.found
            ));
        }
    };
    let report = audit::verify(&engine, &Scope { tenant, session }, progress).await;
    let report = report.map_err(|error| format!("the verification did not finish: {}", said(error)))?;
    match session {
        Some(id) if report.sessions + report.tombstones == 0 => Err(format!("there is no session {id}")),
        _ => Ok(report),
    }
}

fn tell(report: &VerifyReport, json: bool) -> ExitCode {
    let text = if json { serde_json::to_string(report).expect("texts and numbers are JSON") } else { readable(report) };
    match print(&text) {
        ExitCode::SUCCESS if !report.is_clean() => ExitCode::FAILURE,
        code => code,
    }
}

fn readable(report: &VerifyReport) -> String {
    let mut lines: Vec<String> = report
        .findings
        .iter()
        .map(|finding| {
            let whose = match (finding.upload_session_id, finding.tenant_id) {
                (Some(session), _) => format!("session {session}: "),
                (None, Some(tenant)) => format!("tenant {tenant}: "),
                (None, None) => String::new(),
            };
            let seq = finding.seq.map(|seq| format!("event {seq}: "));
            format!("{whose}{}{}", seq.unwrap_or_default(), finding.what)
        })
        .collect();
    if report.found > report.findings.len() as u64 {
        lines.push(format!("and {} more", report.found - report.findings.len() as u64));
    }
    let rest = match (report.positions, report.actions) {
        (Some(last), Some(actions)) => format!("{last} places in the order of all events, {actions} actions"),
        _ => "the order of all events and the operators' actions were not verified".to_owned(),
    };
    let verdict =
        if report.is_clean() { "nothing was changed".to_owned() } else { format!("{} findings", report.found) };
    lines.push(format!(
        "{} sessions, {} events, {} deleted sessions, {rest}: {verdict}",
        report.sessions, report.events, report.tombstones
    ));
    lines.join("\n")
}
