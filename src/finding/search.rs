use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use tracing::warn;

use crate::engine::Engine;
use crate::error::Result;
use crate::pass::{self, Pass, RunRecord};

/// How many runs back a search for orphans may be that came to its end.
const RUNS: u64 = 100;

/// What the last search for orphans met.
#[derive(Clone, Debug)]
pub struct Search {
    pub ended_at: DateTime<Utc>,
    /// What a dry run has found, and left for the next one to remove, as `bucket/key`: the first 20 of `orphans_found`.
    pub orphans: Vec<String>,
    pub orphans_found: u64,
    /// Keys that are not of our making.
    pub foreign: u64,
    /// The first of them, as `bucket/key`.
    pub examples: Vec<String>,
    /// Why it could not see to something, by bucket or by `bucket/key`.
    pub errors: BTreeMap<String, String>,
    /// Its time was up before it had seen everything.
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

/// The last search for orphans that ended well, also a dry one; `None` where there is none among the last 100 runs.
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
            warn!(%error, "a search for orphans has left details that are not understood");
            None
        }
    }
}
