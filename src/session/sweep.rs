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

use super::rows::{self, Queue};
use super::{Session, state};
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pass::{CAUSES_MAX, Report, Run};
use crate::storage::Kind;

/// What became of one session in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// It is what the pass looks for, and the run is a dry one.
    Found,
    /// Something is as it should not be, and it is not known why; said and recorded already.
    Failed,
    /// In use after all, or changed by somebody else meanwhile.
    Skipped,
    /// Its time has not come; it does not count.
    NotDue,
}

/// The least of [`grace`].
const GRACE: TimeDelta = TimeDelta::seconds(60);

/// Sessions of one bucket that the store fails at in a row, at least, before a run leaves that bucket to the next one.
const FAILURES_MAX: usize = 16;

/// Goes through a queue from its oldest session on, `lifecycle.batch_rows` rows at a time, with `each` at work on
/// `lifecycle.concurrency` of them at once, until the queue or the run is over.
///
/// The trouble of one session is logged, counted and named, and is no matter to the others. A bucket that does not answer
/// for many in a row is not asked again in this run, so that it does not use up the time of the others.
///
/// # Errors
/// [`Error::DbUnavailable`]: without a database there is nothing to go on with. What was done before is done, and counted
/// in the run.
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
                warn!(bucket, "a pass leaves a bucket to the next one: the store fails at it again and again");
                report.name(bucket, "failed too often in a row: the rest is left to the next run");
            }
            count(report, id, status, fate)?;
        }
        after = Some(last);
    }
    Ok(())
}

/// Counts what became of a session, and names what failed.
///
/// # Errors
/// [`Error::DbUnavailable`], as it is.
pub(super) fn count(report: &mut Report, id: SessionId, status: Status, fate: Result<Fate>) -> Result<()> {
    match fate {
        Err(error @ Error::DbUnavailable(_)) => return Err(error),
        Err(error) => {
            let error = error.explained();
            warn!(session.id = %id, status = state::name(status), error, "a pass leaves a session to the next one");
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

/// How often in a row the store has failed at the sessions of each bucket.
struct Buckets {
    failures: Mutex<HashMap<String, usize>>,
    most: usize,
}

impl Buckets {
    /// More than are asked about at once: they may all have waited for the same answer.
    fn new(at_least: usize) -> Self {
        Self { failures: Mutex::default(), most: at_least.max(FAILURES_MAX) }
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_given_up(&self, bucket: &str) -> bool {
        self.failures().get(bucket).is_some_and(|failures| *failures >= self.most)
    }

    /// `true` where the bucket is given up by this one.
    fn note(&self, bucket: &str, fate: &Result<Fate>) -> bool {
        let mut all = self.failures();
        match fate {
            // The store does answer for this one, and may well for the others.
            Err(Error::Storage(error)) if error.kind == Kind::Unclear => {
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

/// The reports of several queues together, and what there is to say of each.
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

/// How many were dealt with; in a dry run, how many would be.
pub(super) fn dealt_with(report: &Report) -> u64 {
    report.found - report.failed - report.skipped
}

/// The longest that a request of ours can be at one call to the store.
pub(super) fn longest_call(engine: &Engine) -> TimeDelta {
    seconds(engine.settings.storage.longest_call_secs())
}

/// Younger than this, a request may still be at what was wanted, and the store may be behind with telling of it.
pub(super) fn grace(engine: &Engine) -> TimeDelta {
    GRACE.max(longest_call(engine))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker spawns the passes: this compiles as long as it can.
    #[allow(dead_code)]
    fn passes_can_be_spawned(engine: &Engine, run: &Run) {
        fn spawnable(_: impl Send) {}
        spawnable(super::super::detect_abandoned(engine, run));
        spawnable(super::super::cleanup(engine, run));
        spawnable(super::super::reconcile(engine, run));
    }
}
