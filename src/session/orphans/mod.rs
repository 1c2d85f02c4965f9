//! The search for orphans: data under this server's keys that no session explains. `look.rs` reads the store, `judge.rs` the
//! rows, and `remove.rs` removes.

mod judge;
mod look;
mod remove;

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use entity::{SessionId, TenantId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::{instrument, warn};

use super::buckets;
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pass::{self, Pass, Report, Run};
use crate::storage::Location;

/// The maximum number of keys of each kind that a report names.
const EXAMPLES_MAX: usize = 20;

/// The report's text for a store that takes the prefix of a list for a whole key, as MinIO does.
const UNLISTED: &str = "this store does not list multipart uploads by prefix, so uploads that no session explains \
                        cannot be found";

/// How many runs back to look for one that names the place to begin at.
const RUNS: u64 = 20;

/// Removes orphans, which are in the store without a row that explains them: objects and multipart uploads under
/// `temp/uploads/`, and multipart uploads under `assets/`, in every bucket in use.
///
/// The store is listed first and the rows are read after that, because a row is always written before its data. A row is
/// read once more before its orphan is removed. Only orphans older than `lifecycle.orphan_after_secs` by the store's own
/// clock are removed. The outcome is recorded as an event of the session that the key belongs to. Orphans under no
/// session's key are recorded as an operator action before they are removed. Foreign keys are counted and left alone. Holds
/// one page of a list in memory for each bucket being searched.
///
/// Some stores do not list uploads by prefix. If a store lists none at all, an upload is opened and aborted to find out, in
/// a dry run too. Such a bucket is named in the report's details, and does not count as failed.
///
/// A bucket that does not answer, lies, is gone or belongs to another deployment is named in the report's details and
/// counted as failed; the other buckets are still searched. `lifecycle.concurrency` buckets are searched at once. A run
/// whose time is up names the bucket that the next run begins with, and the place to continue from in each unfinished
/// bucket.
///
/// # Errors
/// Errors of the database.
#[instrument(name = "session.orphans", skip_all)]
pub async fn orphans(engine: &Engine, run: &Run) -> Result<Report> {
    let mut buckets: VecDeque<_> = in_turn(engine).await?.into();
    let mut total = Sweep::new(engine, run, None);
    let mut at_work = FuturesUnordered::new();
    loop {
        while at_work.len() < engine.settings.lifecycle.concurrency
            && !buckets.is_empty()
            && !total.is_over()
            && let Some((bucket, place)) = buckets.pop_front()
        {
            at_work.push(Box::pin(search(engine, run, bucket, place)));
        }
        let Some((bucket, sweep, outcome)) = at_work.next().await else { break };
        total.absorb(&bucket, sweep);
        match outcome {
            Ok(()) => {}
            // The outer error says only that it was the store.
            Err(Error::Storage(cause)) => total.give_up(bucket, cause.to_string()),
            Err(error @ Error::ForeignBucket { .. }) => total.give_up(bucket, error.to_string()),
            Err(error) => {
                run.add(&total.report);
                return Err(error);
            }
        }
    }
    let next = buckets.front().map(|(bucket, _)| bucket.clone());
    // Buckets that this run did not reach keep their places.
    total.places.extend(buckets.into_iter().filter_map(|(bucket, place)| Some((bucket, place?))));
    Ok(total.report(next))
}

/// Searches one bucket, from `place` on.
async fn search<'a>(
    engine: &'a Engine,
    run: &'a Run,
    bucket: String,
    place: Option<Place>,
) -> (String, Sweep<'a>, Result<()>) {
    let mut sweep = Sweep::new(engine, run, place);
    let outcome = sweep.bucket(&bucket).await;
    (bucket, sweep, outcome)
}

/// How far a run has come in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    step: Step,
    /// The search continues after this key.
    key: Option<String>,
}

/// The steps of a search, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Uploads,
    Copies,
    Objects,
    Neighbours,
}

/// Returns the buckets in use, beginning with the first one that the last run did not reach, each with the place it reached.
async fn in_turn(engine: &Engine) -> Result<Vec<(String, Option<Place>)>> {
    let mut buckets: Vec<String> = buckets(engine).await?.into_iter().collect();
    // The newest record may be of this run, and other runs may have been lost before they reported anything.
    let runs = pass::runs(engine, Some(Pass::Orphans), RUNS).await?;
    let Some(reported) = runs.iter().find(|run| run.details.get("foreign").is_some()) else {
        return Ok(buckets.into_iter().map(|bucket| (bucket, None)).collect());
    };
    if let Some(first) = reported.details["next_bucket"].as_str() {
        let passed = buckets.iter().take_while(|bucket| bucket.as_str() < first).count();
        buckets.rotate_left(passed);
    }
    let place_of = |bucket: &str| Place::deserialize(&reported.details["places"][bucket]).ok();
    Ok(buckets.into_iter().map(|bucket| (bucket.clone(), place_of(&bucket))).collect())
}

/// The search of one bucket. Also the total over all buckets.
struct Sweep<'a> {
    engine: &'a Engine,
    run: &'a Run,
    older_than: TimeDelta,
    report: Report,
    /// The keys of orphans.
    orphans: Vec<String>,
    foreign: u64,
    examples: Vec<String>,
    /// Keyed by bucket, or by bucket and key.
    errors: BTreeMap<String, String>,
    /// Where the search begins, and then how far it has come.
    place: Option<Place>,
    /// The places in buckets that were not finished.
    places: BTreeMap<String, Place>,
    /// Whether the time was up before the end.
    is_cut: bool,
}

/// What the rows say about an object or upload in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Explained,
    /// Left by an ended session; the cleanup removes it.
    Waiting,
    Orphan,
}

/// An object or upload in the store, under one of our keys.
struct Found<'a> {
    at: Location,
    what: FoundKind<'a>,
    /// When it arrived in the store, by the store's clock.
    since: DateTime<Utc>,
}

#[derive(Clone, Copy)]
enum FoundKind<'a> {
    Object(SessionId),
    /// With the store's upload id.
    Upload(SessionId, &'a str),
    /// An unfinished copy to an asset's key, with the store's upload id.
    Copy(TenantId, entity::AssetId, &'a str),
}

impl<'a> FoundKind<'a> {
    fn session(self) -> Option<SessionId> {
        match self {
            Self::Object(session) | Self::Upload(session, _) => Some(session),
            Self::Copy(..) => None,
        }
    }

    fn upload_id(self) -> Option<&'a str> {
        match self {
            Self::Object(_) => None,
            Self::Upload(_, id) | Self::Copy(_, _, id) => Some(id),
        }
    }
}

impl<'a> Sweep<'a> {
    fn new(engine: &'a Engine, run: &'a Run, place: Option<Place>) -> Self {
        Self {
            engine,
            run,
            older_than: run.options.older_than.unwrap_or(seconds(engine.settings.lifecycle.orphan_after_secs)),
            report: Report::default(),
            orphans: vec![],
            foreign: 0,
            examples: vec![],
            errors: BTreeMap::new(),
            place,
            places: BTreeMap::new(),
            is_cut: false,
        }
    }

    /// Returns where to begin a step; `None` if an earlier run has finished it, or this run is over.
    fn begin(&mut self, step: Step) -> Option<Place> {
        if self.is_over() || self.place.as_ref().is_some_and(|place| place.step > step) {
            return None;
        }
        let begun = self.place.take().filter(|place| place.step == step);
        let place = begun.unwrap_or(Place { step, key: None });
        self.place = Some(place.clone());
        Some(place)
    }

    /// Records that everything up to this key was handled.
    fn passed(&mut self, step: Step, key: Option<&str>) {
        self.place = Some(Place { step, key: key.map(str::to_owned) });
    }

    fn note_orphan(&mut self, at: &Location) {
        self.report.found += 1;
        if self.orphans.len() < EXAMPLES_MAX {
            self.orphans.push(format!("{}/{}", at.bucket, at.key));
        }
    }

    /// Adds the result of one bucket.
    fn absorb(&mut self, bucket: &str, mut other: Self) {
        self.report.add(&other.report);
        self.foreign += other.foreign;
        for (all, more) in [(&mut self.orphans, &mut other.orphans), (&mut self.examples, &mut other.examples)] {
            all.append(more);
            all.truncate(EXAMPLES_MAX);
        }
        for (what, error) in other.errors {
            if self.errors.len() < EXAMPLES_MAX {
                self.errors.insert(what, error);
            }
        }
        self.is_cut |= other.is_cut;
        if let Some(place) = other.place.filter(|_| other.is_cut) {
            self.places.insert(bucket.to_owned(), place);
        }
    }

    fn give_up(&mut self, bucket: String, error: String) {
        warn!(bucket, error, "could not search a bucket for orphans; the next run tries again");
        self.errors.insert(bucket, error);
        self.report.failed += 1;
    }

    fn is_over(&mut self) -> bool {
        self.is_cut |= self.run.is_over();
        self.is_cut
    }

    fn report(self, next_bucket: Option<String>) -> Report {
        let mut details = Map::new();
        details.insert("orphans".to_owned(), json!(self.orphans));
        details.insert("foreign".to_owned(), json!(self.foreign));
        details.insert("examples".to_owned(), json!(self.examples));
        if !self.errors.is_empty() {
            details.insert("errors".to_owned(), json!(self.errors));
        }
        if self.is_cut {
            details.insert("unfinished".to_owned(), json!(true));
            details.insert("next_bucket".to_owned(), json!(next_bucket));
            details.insert("places".to_owned(), json!(self.places));
        }
        Report { details: Some(Value::Object(details)), ..self.report }
    }
}
