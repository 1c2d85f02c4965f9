//! Metrics of the work in the background, for Prometheus to scrape.

use std::fmt::Write as _;

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::caller::Admin;
use crate::engine::Engine;
use crate::finding::{self, FindingKind};
use crate::http::problem::Answer;
use crate::jobs::{self, State};
use crate::schedule::{self, Status};

/// Prometheus' text format, version 0.0.4.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Reads a value of the last run of a pass.
type RunValue = fn(&crate::pass::RunRecord) -> Option<i64>;

/// One gauge for each entry, with the pass as its label. A pass that never ran has no line.
const GAUGES: [(&str, &str, RunValue); 8] = [
    ("started_timestamp_seconds", "When the last run began.", |run| Some(run.started_at.timestamp())),
    ("ended_timestamp_seconds", "When the last run ended; absent while it runs.", |run| {
        run.ended_at.map(|ended| ended.timestamp())
    }),
    ("found", "Items that the last run found.", |run| Some(run.found)),
    ("done", "Items that the last run handled.", |run| Some(run.done)),
    ("failed", "Items left for the next run because something did not answer.", |run| Some(run.failed)),
    ("skipped", "Items that were in use after all, or had changed.", |run| Some(run.skipped)),
    ("dry_run", "1 if the last run was a dry run.", |run| Some(run.dry_run.into())),
    ("broken", "1 if the last run ended early.", |run| Some(run.error.is_some().into())),
];

/// Returns metrics for Prometheus: the last run of each pass, and the numbers of jobs and findings.
///
/// They describe the deployment, not one process: every replica answers the same.
#[utoipa::path(
    get, path = "/admin/metrics", tag = "admin",
    responses((status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain")),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn metrics(engine: Data<Engine>, admin: Admin) -> Answer {
    admin.operator()?;
    let passes = schedule::status(&engine).await?;
    let jobs = jobs::count(&engine).await?;
    let findings = finding::count(&engine).await?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(page(&passes, &jobs, &findings)))
}

fn page(passes: &[Status], jobs: &[(String, State, i64)], findings: &[(FindingKind, i64)]) -> String {
    let mut page = String::new();
    for (name, help, of_run) in GAUGES {
        gauge(&mut page, &format!("quaymaster_pass_last_run_{name}"), help);
        for status in passes {
            if let Some(value) = status.last_run.as_ref().and_then(of_run) {
                line(
                    &mut page,
                    format_args!("quaymaster_pass_last_run_{name}{{pass=\"{}\"}} {value}", status.pass.name()),
                );
            }
        }
    }
    gauge(&mut page, "quaymaster_jobs", "Jobs that are not done.");
    for (kind, state, count) in jobs {
        // The names of kinds are ours: none needs escaping.
        line(&mut page, format_args!("quaymaster_jobs{{kind=\"{kind}\",state=\"{}\"}} {count}", state.name()));
    }
    gauge(&mut page, "quaymaster_findings", "Problems between rows and store; see /admin/findings.");
    for (kind, count) in findings {
        line(&mut page, format_args!("quaymaster_findings{{kind=\"{}\"}} {count}", kind.name()));
    }
    page
}

fn gauge(page: &mut String, name: &str, help: &str) {
    line(page, format_args!("# HELP {name} {help}\n# TYPE {name} gauge"));
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("a String takes all that memory holds");
}
