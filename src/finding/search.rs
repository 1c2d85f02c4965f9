use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use tracing::warn;

use crate::engine::Engine;
use crate::error::Result;
use crate::pass::{self, Pass, RunRecord};

/// How many runs to look back for a search for orphans that completed.
const RUNS: u64 = 100;

/// The result of the last search for orphans.
#[derive(Clone, Debug)]
pub struct Search {
    pub ended_at: DateTime<Utc>,
    /// What a dry run has found and left for the next run to remove, as `bucket/key`: the first 20 of `orphans_found`.
    pub orphans: Vec<String>,
    pub orphans_found: u64,
    /// Number of keys that do not have the form of this server's keys.
    pub foreign: u64,
    /// The first of the foreign keys, as `bucket/key`.
    pub examples: Vec<String>,
    /// Why the search could not handle something, by bucket or by `bucket/key`.
    pub errors: BTreeMap<String, String>,
    /// The search ran out of time before it had seen everything.
    pub is_unfinished: bool,
}

/// The part of [`crate::session::orphans`]' report that is of interest here.
#[derive(Debug, Deserialize)]
struct Details {
    #[serde(default)]
    orphans: Vec<String>,
    foreign: u64,
    examples: Vec<String>,
    #[serde(default)]
    errors: BTreeMap<String, String>,
    #[serde(default)]
    unfinished: bool,
}

/// Returns the last search for orphans that ended without an error, dry runs included; `None` if the last 100 runs contain
/// none.
///
/// # Errors
/// The database does not answer.
pub async fn last_search(engine: &Engine) -> Result<Option<Search>> {
    let runs = pass::runs(engine, Some(Pass::Orphans), RUNS).await?;
    Ok(runs.iter().filter(|run| run.error.is_none()).find_map(search))
}

fn search(run: &RunRecord) -> Option<Search> {
    let ended_at = run.ended_at?;
    match Details::deserialize(&run.details) {
        Ok(Details { orphans, foreign, examples, errors, unfinished }) => Some(Search {
            ended_at,
            orphans: if run.dry_run { orphans } else { vec![] },
            orphans_found: if run.dry_run { run.found.unsigned_abs() } else { 0 },
            foreign,
            examples,
            errors,
            is_unfinished: unfinished,
        }),
        Err(error) => {
            warn!(%error, "the details of a search for orphans cannot be parsed");
            None
        }
    }
}
