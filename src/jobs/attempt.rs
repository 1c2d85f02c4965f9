use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use super::{Lease, rows};
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};
use crate::settings;
use crate::together::{Together, Way};

/// Maximum number of finished jobs that one statement deletes.
const ENDED_AT_ONCE: usize = 64;

/// Maximum number of characters kept of an error text.
const ERROR_CHARS_MAX: usize = 1_000;

/// Does one job. The token is cancelled to ask for an early end: at shutdown, or after the job was lost to another worker.
/// Work that must not take effect twice commits its changes in the transaction of [`Lease::settle`].
pub type Work = for<'a> fn(&'a Engine, &'a Lease, &'a CancellationToken) -> BoxFuture<'a, Result<Ending>>;

/// How far the work got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Done,
    /// The work stopped early on request; another worker continues it at once.
    HandedOver,
}

/// Finished jobs that wait to be deleted together.
pub type Ended = Together<(), Lease, Result<bool>>;

/// Works on one job and records the outcome. If the outcome cannot be recorded, the lease expires and the job is done again.
pub(super) async fn attempt(engine: &Engine, lease: &Lease, work: Work, stop: &CancellationToken) {
    let job = &lease.job;
    let span = info_span!("job.attempt", job.id = %job.id, job.kind = job.kind, job.attempt = job.attempts);
    async {
        let recorded = if job.attempts > job.max_attempts {
            // The last allowed attempt has no recorded outcome: its worker vanished.
            let error = job.last_error.as_deref().unwrap_or("every worker that started the job vanished");
            warn!(job.error = error, "the job is dead");
            rows::make_dead(engine, lease, error).await
        } else {
            let (ended, was_stopped) = lease
                .run_with_heartbeat(engine, stop, async |own| {
                    let ended = AssertUnwindSafe(work(engine, lease, own)).catch_unwind().await;
                    (ended, own.is_cancelled())
                })
                .await;
            match ended {
                // A job that has settled no longer has a row.
                Ok(Ok(Ending::Done)) => finish(engine, lease).await,
                Ok(Ok(Ending::HandedOver)) => rows::release(engine, lease).await,
                Ok(Err(error)) if was_stopped => {
                    debug!(%error, "the job was stopped");
                    rows::release(engine, lease).await
                }
                Ok(Err(error)) => fail(engine, lease, &error).await,
                Err(_) => {
                    error!("the job panicked");
                    postpone_or_give_up(engine, lease, "the job panicked, which is a bug").await
                }
            }
        };
        if let Err(error) = recorded {
            debug!(%error, "the outcome of the job was not recorded; the job is done again when its lease expires");
        }
    }
    .instrument(span)
    .await;
}

/// Deletes the job, together with others that end at the same time. Returns `false` if the lease is lost.
async fn finish(engine: &Engine, lease: &Lease) -> Result<bool> {
    let delete = |engine, leases: Vec<Lease>| {
        async move {
            match rows::delete_all(&engine, &leases).await {
                Ok(deleted) => leases.iter().map(|lease| Ok(deleted.contains(&lease.job.id))).collect(),
                Err(error) => error.for_each(leases.len()).unwrap_or_else(|| {
                    error!(error = with_causes(&error), "finished jobs cannot be deleted");
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
        engine.db.note_damage(cause, engine.clock.now());
    }
    let text = error.explained();
    // An outage is not the job's fault, and ends by itself.
    if error.is_outage() {
        debug!(error = text, "the job failed");
    } else {
        warn!(error = text, "the job failed");
    }
    postpone_or_give_up(engine, lease, &text).await
}

/// Postpones the job to its next attempt, or buries it after the last one.
async fn postpone_or_give_up(engine: &Engine, lease: &Lease, error: &str) -> Result<bool> {
    let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
    if lease.job.attempts >= lease.job.max_attempts {
        warn!(job.error = error, "the job is dead");
        return rows::make_dead(engine, lease, &error).await;
    }
    let pause = pause_after(&engine.settings.jobs, lease.job.attempts);
    rows::postpone(engine, lease, &error, engine.clock.now() + pause).await
}

/// Returns a random pause up to a bound that doubles with each failure, so that jobs that failed together are not retried
/// together.
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
