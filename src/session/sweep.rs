use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use entity::SessionId;
use entity::upload_session::Status;
use futures_util::future::OptionFuture;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tracing::warn;

use super::Session;
use super::rows::{self, Queue};
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pass::{CAUSES_MAX, Report, Run};
use crate::storage::ErrorKind;

/// The outcome of one session in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// The pass looks for this session, and the run is a dry run.
    Found,
    /// The session could not be handled; this is already logged and recorded.
    Failed,
    /// The session is in use after all, or was changed meanwhile.
    Skipped,
    /// The session is not due yet; it is not counted.
    NotDue,
}

/// The minimum of [`grace`].
const GRACE: TimeDelta = TimeDelta::seconds(60);

/// The minimum number of failures in a row for one bucket after which a run leaves that bucket to the next run.
const FAILURES_MAX: usize = 16;

/// Processes a queue from its oldest session on, `lifecycle.batch_rows` rows at a time, until the queue or the run ends.
/// `each` runs for `lifecycle.concurrency` sessions at once.
///
/// The error of one session is logged, counted and named in the report, and does not affect the others. A bucket whose store
/// fails for many sessions in a row is not asked again in this run, so that it does not use up the time of the others.
///
/// # Errors
/// [`Error::DbUnavailable`]: the pass cannot continue without a database. Work done before it stays done, and is counted in
/// the run.
pub(super) async fn sweep<F>(engine: &Engine, run: &Run, queue: Queue, each: impl Fn(Session) -> F) -> Result<Report>
where
    F: Future<Output = Result<Fate>>,
{
    let mut report = Report::default();
    let outcome = go_through(engine, run, queue, each, &mut report).await;
    run.add(&report);
    outcome.map(|()| report)
}

async fn go_through<F>(
    engine: &Engine,
    run: &Run,
    queue: Queue,
    each: impl Fn(Session) -> F,
    report: &mut Report,
) -> Result<()>
where
    F: Future<Output = Result<Fate>>,
{
    let settings = &engine.settings.lifecycle;
    let buckets = Buckets::new(2 * settings.concurrency);
    let mut after: Option<Session> = None;
    while !run.is_over() {
        let page = rows::next(engine.db.search_conn(), queue, after.as_ref(), settings.batch_rows).await?;
        let Some(last) = page.last().cloned() else { break };
        let mut fates = stream::iter(page)
            .take_while(|_| ready(!run.is_over()))
            .map(|session| {
                let (id, status, bucket) = (session.id, session.status, session.bucket.clone());
                let fate = (!buckets.are_given_up(&bucket)).then(|| each(session));
                async move { (id, status, bucket, OptionFuture::from(fate).await) }
            })
            .buffer_unordered(settings.concurrency);
        while let Some((id, status, bucket, fate)) = fates.next().await {
            let fate = fate.unwrap_or(Ok(Fate::Failed));
            if buckets.note(&bucket, &fate) {
                warn!(bucket, "the store failed too many times in a row; a pass leaves the bucket to the next run");
                report.name(bucket, "the store failed too many times in a row; the rest is left to the next run");
            }
            count(report, id, status, fate)?;
        }
        after = Some(last);
    }
    Ok(())
}

/// Counts the outcome of a session, and names the session if it failed.
///
/// # Errors
/// [`Error::DbUnavailable`], unchanged.
pub(super) fn count(report: &mut Report, id: SessionId, status: Status, fate: Result<Fate>) -> Result<()> {
    match fate {
        Err(error @ Error::DbUnavailable(_)) => return Err(error),
        Err(error) => {
            let error = error.explained();
            warn!(session.id = %id, status = status.name(), error, "a session failed; the next run tries again");
            report.found += 1;
            report.failed += 1;
            report.name(id.to_string(), &error);
        }
        Ok(Fate::NotDue) => {}
        Ok(fate) => {
            report.found += 1;
            report.failed += u64::from(fate == Fate::Failed);
            report.done += u64::from(fate == Fate::Done);
            report.skipped += u64::from(fate == Fate::Skipped);
        }
    }
    Ok(())
}

/// How many times in a row the store has failed for the sessions of each bucket.
struct Buckets {
    failures: Mutex<HashMap<String, usize>>,
    most: usize,
}

impl Buckets {
    /// `at_least` is more than the sessions processed at once, because these may all have waited for the same answer.
    fn new(at_least: usize) -> Self {
        Self { failures: Mutex::default(), most: at_least.max(FAILURES_MAX) }
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_given_up(&self, bucket: &str) -> bool {
        self.failures().get(bucket).is_some_and(|failures| *failures >= self.most)
    }

    /// Counts one outcome; `true` if it makes the run give the bucket up.
    fn note(&self, bucket: &str, fate: &Result<Fate>) -> bool {
        let mut all = self.failures();
        match fate {
            // The store does answer for this session, and may answer for the others.
            Err(Error::Storage(error)) if error.kind == ErrorKind::Unclear => {
                all.remove(bucket);
                false
            }
            Ok(Fate::Failed) | Err(Error::Storage(_)) => {
                let failures = all.entry(bucket.to_owned()).or_default();
                *failures += 1;
                *failures == self.most
            }
            Ok(Fate::Done | Fate::Found | Fate::Skipped | Fate::NotDue) | Err(_) => {
                all.remove(bucket);
                false
            }
        }
    }
}

/// Adds up the reports of several queues; `details` has the counts of each.
pub(super) fn sum(mut details: Value, reports: &[&Report]) -> Report {
    let causes: BTreeMap<_, _> = reports.iter().flat_map(|report| &report.causes).take(CAUSES_MAX).collect();
    if !causes.is_empty() {
        details["errors"] = json!(causes);
    }
    let mut total = Report { details: Some(details), ..Report::default() };
    for report in reports {
        total.add(report);
    }
    total
}

/// Returns how many sessions were dealt with; in a dry run, how many would be.
pub(super) fn dealt_with(report: &Report) -> u64 {
    report.found - report.failed - report.skipped
}

/// Returns the longest time that one of our calls to the store can take.
pub(super) fn longest_call(engine: &Engine) -> TimeDelta {
    seconds(engine.settings.storage.longest_call_secs())
}

/// Returns the age up to which a request may still be working on an intent, and the store may not show the result yet.
pub(super) fn grace(engine: &Engine) -> TimeDelta {
    GRACE.max(longest_call(engine))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers spawn the passes: this compiles only while the passes are `Send`.
    #[allow(dead_code)]
    fn passes_can_be_spawned(engine: &Engine, run: &Run) {
        fn spawnable(_: impl Send) {}
        spawnable(super::super::detect_abandoned(engine, run));
        spawnable(super::super::cleanup(engine, run));
        spawnable(super::super::reconcile(engine, run));
    }
}
