use std::path::Path;
use std::process::ExitCode;

use entity::SessionId;
use serde_json::{Value, json};

use super::table::{lines, or_dash, table, time};
use super::tenant::named;
use super::{ACTOR, failed, open, print, said, warn};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::finding::{self, Filter, Finding, Search};
use crate::page::Page;
use crate::views::{FindingView, Time};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quaymaster uploads findings
  quaymaster uploads findings --kind asset-failed --tenant acme
  quaymaster uploads findings --json | jq -r 'select(.kind == \"not-cleared\").cause'

Kinds:
  asset-failed    the uploaded object was overwritten or gone before it was copied, or the copy is wrong
  not-cleared     the session has ended, but its storage could not be cleared; the next cleanup tries again
  orphan          no session explains it; a dry run found it, and the next real run removes it
  foreign         a key that does not have the form of this server's keys; nothing touches it
  orphans-failed  the search for orphans could not handle it; the next search tries again

The last three come from the last search for orphans. They belong to the deployment, not to a tenant.")]
pub(super) struct Args {
    /// List only findings of this tenant: its slug or id
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
    /// List only findings of this kind: asset-failed, not-cleared, orphan, foreign, orphans-failed
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<Kind>,
    /// List at most this many findings of sessions
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    /// List only findings of sessions older than this one: the last one of the previous page
    #[arg(long, value_name = "ID")]
    before: Option<SessionId>,
    /// Print a line of JSON for each finding
    #[arg(long)]
    json: bool,
}

/// The kinds of findings about a session, and those of the search for orphans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    OfSession(finding::FindingKind),
    Orphan,
    Foreign,
    OrphansFailed,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::OfSession(finding::FindingKind::AssetFailed),
        Self::OfSession(finding::FindingKind::NotCleared),
        Self::Orphan,
        Self::Foreign,
        Self::OrphansFailed,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::OfSession(kind) => kind.name(),
            Self::Orphan => "orphan",
            Self::Foreign => "foreign",
            Self::OrphansFailed => "orphans-failed",
        }
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("must be one of {}", known()))
}

pub(super) async fn run(args: Args, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    match found(&engine, &args).await {
        Ok(found) => report(&found, args.json),
        Err(error) => failed(error),
    }
}

/// The findings that were asked for.
struct Found {
    of_sessions: Page<Finding, SessionId>,
    /// `None` if they were not asked for.
    met: Option<Met>,
}

/// The findings of the last search for orphans, if one has completed.
struct Met {
    search: Option<Search>,
    items: Vec<Item>,
}

/// One finding of the search for orphans.
struct Item {
    kind: Kind,
    bucket: String,
    /// `None` if it concerns the whole bucket.
    object_key: Option<String>,
    cause: String,
}

async fn found(engine: &Engine, args: &Args) -> Result<Found, String> {
    let is_narrowed = args.tenant.is_some() || args.before.is_some();
    match args.kind {
        None if is_narrowed => Ok(Found { of_sessions: of_sessions(engine, args, None).await?, met: None }),
        None => {
            let of_sessions = of_sessions(engine, args, None).await?;
            Ok(Found { of_sessions, met: Some(met(engine, None).await?) })
        }
        Some(Kind::OfSession(kind)) => {
            Ok(Found { of_sessions: of_sessions(engine, args, Some(kind)).await?, met: None })
        }
        Some(Kind::Orphan | Kind::Foreign | Kind::OrphansFailed) if is_narrowed => {
            Err("these findings belong to no tenant and no session; omit --tenant and --before".to_owned())
        }
        Some(Kind::Orphan | Kind::Foreign | Kind::OrphansFailed) => {
            let of_sessions = Page { items: vec![], next: None };
            Ok(Found { of_sessions, met: Some(met(engine, args.kind).await?) })
        }
    }
}

async fn of_sessions(
    engine: &Engine,
    args: &Args,
    kind: Option<finding::FindingKind>,
) -> Result<Page<Finding, SessionId>, String> {
    let caller = match &args.tenant {
        Some(tenant) => Some(Caller::operating(named(engine, tenant).await?.id, ACTOR.clone())),
        None => None,
    };
    let filter = Filter { kind, caller: caller.as_ref() };
    finding::list(engine, filter, args.before, args.limit).await.map_err(said)
}

async fn met(engine: &Engine, kind: Option<Kind>) -> Result<Met, String> {
    let search = finding::last_search(engine).await.map_err(said)?;
    let mut items = search.as_ref().map(items).unwrap_or_default();
    items.retain(|item| kind.is_none_or(|only| only == item.kind));
    Ok(Met { search, items })
}

fn items(search: &Search) -> Vec<Item> {
    let item = |kind, place: &str, cause: &str| {
        // A bucket's name has no slash.
        let (bucket, key) = place.split_once('/').map_or((place, None), |(bucket, key)| (bucket, Some(key)));
        Item { kind, bucket: bucket.to_owned(), object_key: key.map(str::to_owned), cause: cause.to_owned() }
    };
    let foreign = search.examples.iter().map(|place| item(Kind::Foreign, place, "not a key of this server"));
    let errors = search.errors.iter().map(|(place, error)| item(Kind::OrphansFailed, place, error));
    let orphans = search.orphans.iter().map(|place| item(Kind::Orphan, place, "no session explains it"));
    orphans.chain(foreign).chain(errors).collect()
}

fn report(found: &Found, json: bool) -> ExitCode {
    if let Some(last) = found.of_sessions.next {
        warn(format_args!("there are more; continue with --before {last}"));
    }
    for (kind, what) in [(Kind::Orphan, "orphans"), (Kind::Foreign, "foreign keys")] {
        let left_out = found.met.as_ref().map_or(0, |met| left_out(met, kind));
        if left_out > 0 {
            warn(format_args!("the search for orphans found {left_out} more {what} that it did not name"));
        }
    }
    print(&if json { json_lines(found) } else { text(found) })
}

/// Returns how many findings the search counted but did not name; 0 if they were not asked for.
fn left_out(met: &Met, kind: Kind) -> u64 {
    let named = met.items.iter().filter(|item| item.kind == kind).count() as u64;
    match (&met.search, kind) {
        (Some(search), Kind::Orphan) if named > 0 => search.orphans_found.saturating_sub(named),
        (Some(search), Kind::Foreign) if named > 0 => search.foreign.saturating_sub(named),
        _ => 0,
    }
}

fn json_lines(found: &Found) -> String {
    let of_sessions = found.of_sessions.items.iter().map(|finding| json!(FindingView::from(finding.clone())));
    let met = found.met.iter().flat_map(|Met { search, items }| {
        let since = search.as_ref().map(|search| Time(search.ended_at));
        items.iter().map(move |item| in_json(item, since))
    });
    lines(of_sessions.chain(met))
}

/// With the members of a [`FindingView`].
fn in_json(item: &Item, since: Option<Time>) -> Value {
    json!({
        "kind": item.kind.name(), "tenant_id": null, "upload_session_id": null, "asset_id": null,
        "bucket": item.bucket, "object_key": item.object_key, "since": since, "cause": item.cause,
    })
}

fn text(found: &Found) -> String {
    let of_sessions = found.of_sessions.items.iter().map(of_session);
    let met = found.met.iter().flat_map(|Met { search, items }| {
        let since = or_dash(search.as_ref(), |search| time(search.ended_at));
        items.iter().map(move |item| of_search(item, since.clone()))
    });
    let rows: Vec<_> = of_sessions.chain(met).collect();
    let titles = ["KIND", "SINCE", "TENANT", "SESSION", "PLACE", "CAUSE"];
    let findings = if rows.is_empty() { "nothing was found".to_owned() } else { table(&titles, &rows) };
    match &found.met {
        Some(met) => format!("{findings}\n\n{}", searched(met.search.as_ref())),
        None => findings,
    }
}

fn of_session(finding: &Finding) -> Vec<String> {
    let place = format!("{}/{}", finding.bucket, finding.object_key);
    let (tenant, session) = (finding.tenant.to_string(), finding.session.to_string());
    vec![finding.kind.name().to_owned(), time(finding.since), tenant, session, place, finding.cause.clone()]
}

fn of_search(item: &Item, since: String) -> Vec<String> {
    let place = match &item.object_key {
        Some(key) => format!("{}/{key}", item.bucket),
        None => item.bucket.clone(),
    };
    vec![item.kind.name().to_owned(), since, "-".to_owned(), "-".to_owned(), place, item.cause.clone()]
}

/// Says when the last search for orphans ended, and whether it was complete.
fn searched(search: Option<&Search>) -> String {
    match search {
        None => "none of the last 100 searches for orphans has completed".to_owned(),
        Some(search) if search.is_unfinished => {
            format!("the last search for orphans ended at {}, when its time was up", time(search.ended_at))
        }
        Some(search) => format!("the last search for orphans ended at {}", time(search.ended_at)),
    }
}
