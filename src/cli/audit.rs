use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use entity::SessionId;

use super::tenant::named;
use super::{failed, open, print, warn};
use crate::event::{self, Scope, VerifyReport};

/// Between two lines about a run that takes long.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check that the record of events is as the server wrote it; exits with 1 where it is not
    #[command(after_help = "\
Examples:
  quaymaster audit verify
  quaymaster audit verify --tenant acme --json

Without --tenant and --session it also finds whole sessions that were removed. A server may run meanwhile.")]
    Verify {
        /// One tenant's sessions only: its slug or id
        #[arg(long, value_name = "SLUG")]
        tenant: Option<String>,
        /// One session only
        #[arg(long, value_name = "ID")]
        session: Option<SessionId>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: Command, config: Option<&Path>) -> ExitCode {
    let Command::Verify { tenant, session, json } = command;
    match verify(tenant.as_deref(), session, config).await {
        Ok(report) => tell(&report, json),
        Err(error) => failed(error),
    }
}

async fn verify(slug: Option<&str>, session: Option<SessionId>, config: Option<&Path>) -> Result<VerifyReport, String> {
    let engine = open(config).await?;
    let tenant = match slug {
        None => None,
        Some(slug) => Some(named(&engine, slug).await?.id),
    };
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
    let report = event::verify(&engine, &Scope { tenant, session }, progress).await;
    let report = report.map_err(|error| format!("not verified to the end: {error}"))?;
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
            let session = finding.upload_session_id.map(|id| format!("session {id}: "));
            let seq = finding.seq.map(|seq| format!("event {seq}: "));
            format!("{}{}{}", session.unwrap_or_default(), seq.unwrap_or_default(), finding.what)
        })
        .collect();
    if report.found > report.findings.len() as u64 {
        lines.push(format!("and {} more", report.found - report.findings.len() as u64));
    }
    let order = report.positions.map_or_else(
        || "the order of all events was not looked at".to_owned(),
        |last| format!("{last} places in the order of all events"),
    );
    let verdict =
        if report.is_clean() { "nothing was changed".to_owned() } else { format!("{} findings", report.found) };
    lines.push(format!(
        "{} sessions, {} events, {} deleted sessions, {order}: {verdict}",
        report.sessions, report.events, report.tombstones
    ));
    lines.join("\n")
}
