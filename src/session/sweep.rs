use std::future::ready;

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use tracing::warn;

use super::rows::{self, Queue};
use super::{Session, state};
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pass::{Report, Run};

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

/// Goes through a queue from its oldest session on, `lifecycle.batch_rows` rows at a time, with `each` at work on
/// `lifecycle.concurrency` of them at once, until the queue or the run is over.
///
/// The trouble of one session is logged and counted, and is no matter to the others.
///
/// # Errors
/// [`Error::DbUnavailable`]: without a database there is nothing to go on with. What was done before is done.
pub(super) async fn sweep<F>(engine: &Engine, run: &Run, queue: Queue, each: impl Fn(Session) -> F) -> Result<Report>
where
    F: Future<Output = Result<Fate>>,
{
    let settings = &engine.settings.lifecycle;
    let mut report = Report::default();
    let mut after: Option<Session> = None;
    while !run.is_over() {
        let page = rows::next(engine.db.search_conn(), queue, after.as_ref(), settings.batch_rows).await?;
        let Some(last) = page.last().cloned() else { break };
        let mut fates = stream::iter(page)
            .take_while(|_| ready(!run.is_over()))
            .map(|session| {
                let (id, status) = (session.id, session.status);
                let fate = each(session);
                async move { (id, status, fate.await) }
            })
            .buffer_unordered(settings.concurrency);
        while let Some((id, status, fate)) = fates.next().await {
            match fate {
                Err(error @ Error::DbUnavailable(_)) => return Err(error),
                Err(error) => {
                    warn!(session.id = %id, status = state::name(status), %error, "a pass leaves a session to the next one");
                    report.found += 1;
                    report.failed += 1;
                }
                Ok(Fate::NotDue) => {}
                Ok(fate) => {
                    report.found += 1;
                    report.failed += u64::from(fate == Fate::Failed);
                    report.done += u64::from(fate == Fate::Done);
                    report.skipped += u64::from(fate == Fate::Skipped);
                }
            }
        }
        after = Some(last);
    }
    Ok(report)
}

/// The counts of several queues together.
pub(super) fn sum(reports: &[&Report]) -> Report {
    let total = |of: fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum();
    Report {
        found: total(|report| report.found),
        done: total(|report| report.done),
        failed: total(|report| report.failed),
        skipped: total(|report| report.skipped),
        details: None,
    }
}

/// How many were dealt with; in a dry run, how many would be.
pub(super) fn dealt_with(report: &Report) -> u64 {
    report.found - report.failed - report.skipped
}

/// The longest that a request of ours can be at one call to the store.
pub(super) fn longest_call(engine: &Engine) -> TimeDelta {
    seconds(engine.settings.storage.longest_call_secs())
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
