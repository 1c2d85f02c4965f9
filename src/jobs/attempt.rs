use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use super::{Lease, rows};
use crate::deployment;
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};
use crate::settings;
use crate::together::{Together, Way};

/// Jobs that one statement deletes.
const ENDED_AT_ONCE: usize = 64;

/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 1_000;

/// Does one job. The token asks for an early end: at shutdown, or because the job was lost to another worker. What the
/// work changes in the database it commits together with [`Lease::settle`].
pub type Work = for<'a> fn(&'a Engine, &'a Lease, &'a CancellationToken) -> BoxFuture<'a, Result<Ending>>;

/// How far the work got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Done,
    /// It stopped early because it was asked to: another worker shall go on at once.
    HandedOver,
}

/// Jobs that are done, and wait to be deleted.
pub type Ended = Together<(), Lease, Result<bool>>;

/// Works on one job and records what came of it. Where nothing can be recorded, the lease ends and the job is done again.
pub(super) async fn attempt(engine: &Engine, lease: &Lease, work: Work, stop: &CancellationToken) {
    let job = &lease.job;
    let span = info_span!("job.attempt", job.id = %job.id, job.kind = job.kind, job.attempt = job.attempts);
    async {
        let recorded = if job.attempts > job.max_attempts {
            // None of the attempts before was reported as the last one: their workers vanished.
            let error = job.last_error.as_deref().unwrap_or("each worker that began it vanished");
            warn!(job.error = error, "the job is dead");
            rows::bury(engine, lease, error).await
        } else {
            let (ended, was_stopped) = lease
                .held(engine, stop, async |own| {
                    let ended = AssertUnwindSafe(work(engine, lease, own)).catch_unwind().await;
                    (ended, own.is_cancelled())
                })
                .await;
            match ended {
                // A job that has settled has no row any more.
                Ok(Ok(Ending::Done)) => finish(engine, lease).await,
                Ok(Ok(Ending::HandedOver)) => rows::release(engine, lease).await,
                Ok(Err(error)) if was_stopped => {
                    debug!(%error, "the job was stopped");
                    rows::release(engine, lease).await
                }
                Ok(Err(error)) => fail(engine, lease, &error).await,
                Err(_) => {
                    error!("the job panicked");
                    put_off(engine, lease, "a bug: it panicked").await
                }
            }
        };
        if let Err(error) = recorded {
            debug!(%error, "what came of the job was not recorded; it is done again when its lease ends");
        }
    }
    .instrument(span)
    .await;
}

/// Deletes the job, with others that end at the same time; `false` where the lease is lost.
async fn finish(engine: &Engine, lease: &Lease) -> Result<bool> {
    let delete = |engine, leases: Vec<Lease>| {
        async move {
            match rows::delete_all(&engine, &leases).await {
                Ok(deleted) => leases.iter().map(|lease| Ok(deleted.contains(&lease.job.id))).collect(),
                Err(error) => error.for_each(leases.len()).unwrap_or_else(|| {
                    error!(error = with_causes(&error), "jobs that are done cannot be deleted");
                    leases.iter().map(|_| Ok(false)).collect()
                }),
            }
        }
        .boxed()
    };
    let way = Way::in_background(|_, ()| ENDED_AT_ONCE, delete);
    engine.ended.done((), engine, lease.clone(), way).await
}

async fn fail(engine: &Engine, lease: &Lease, error: &Error) -> Result<bool> {
    if let Error::Db(cause) = error {
        deployment::heed(engine, cause);
    }
    let text = error.explained();
    // An outage is somebody else's, and is over when it is over.
    if error.is_outage() {
        debug!(error = text, "the job failed");
    } else {
        warn!(error = text, "the job failed");
    }
    put_off(engine, lease, &text).await
}

/// Until its next attempt, or for good.
async fn put_off(engine: &Engine, lease: &Lease, error: &str) -> Result<bool> {
    let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
    if lease.job.attempts >= lease.job.max_attempts {
        warn!(job.error = error, "the job is dead");
        return rows::bury(engine, lease, &error).await;
    }
    let pause = pause_after(&engine.settings.jobs, lease.job.attempts);
    rows::postpone(engine, lease, &error, engine.clock.now() + pause).await
}

/// Anything up to a bound that doubles with each failure: jobs that failed together do not come back together.
fn pause_after(settings: &settings::Jobs, attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(32);
    let secs = settings.backoff_secs.saturating_mul(1 << doublings).min(settings.backoff_max_secs);
    Duration::from_millis(fastrand::u64(1..=secs.saturating_mul(1_000).max(1)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_pause_doubles_up_to_the_longest_and_is_spread() {
        let mut settings = Settings::parse(None, []).unwrap().jobs;
        (settings.backoff_secs, settings.backoff_max_secs) = (5, 60);
        for (attempts, most) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (40, 60), (i32::MAX, 60)] {
            let pauses: Vec<Duration> = (0..200).map(|_| pause_after(&settings, attempts)).collect();
            let bound = Duration::from_secs(most);
            assert!(pauses.iter().all(|pause| *pause <= bound && !pause.is_zero()), "{attempts}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause > bound / 2) && pauses.iter().any(|pause| *pause < bound / 2));
        }
    }
}
