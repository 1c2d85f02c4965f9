//! Runs work that keeps a processor busy for longer than a moment: parsing a body of megabytes, writing an answer of
//! megabytes, verbs over many rows. On a thread that serves connections, it would delay all of them. Here it has threads of
//! its own, for half of the processors, and the askers take turns.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::in_flight::ShareOwner;
use super::problem::Problem;
use crate::threads::{Threads, ThreadsError};
use crate::turns::{ActiveTenants, FairQueue, PerParty, Permit};
use crate::yielding::give_way_in_small_steps;

/// A body or an answer of up to this many bytes is handled on the calling thread: it takes about a millisecond.
const SMALL: usize = 64 << 10;

/// How long [`HeavyWork::run`] and [`HeavyWork::finish`] wait for a turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// Verbs per thread that one asker may run at a time while it is alone: they spend most of their time waiting for rows or
/// for the store. While others are active, it is one per thread, because what a verb waits for is work elsewhere.
const VERBS_EACH: usize = 2;
const VERBS_PATIENCE: Duration = Duration::from_secs(10);

/// The longest rest after a verb. A verb that took longer has rested in between, or has waited for something.
const REST_MAX: Duration = Duration::from_millis(50);

pub(super) struct HeavyWork {
    /// For work that never waits.
    turns: Arc<FairQueue>,
    verbs: Arc<FairQueue>,
    active: ActiveTenants,
    threads: Threads,
}

impl HeavyWork {
    /// Starts one thread for every two processors. One asker has at most half of the places.
    ///
    /// # Errors
    /// [`ThreadsError`].
    pub(super) fn new(processors: usize, active: &ActiveTenants) -> Result<Self, ThreadsError> {
        let places = (processors / 2).max(1);
        let verbs = places * VERBS_EACH * 2;
        Ok(Self {
            turns: FairQueue::new(places, PerParty { alone: places / 2, beside: places / 2 }, active, PATIENCE),
            verbs: FairQueue::new(verbs, PerParty { alone: verbs / 2, beside: places }, active, VERBS_PATIENCE),
            active: active.clone(),
            threads: Threads::for_long_work("apart", places, active)?,
        })
    }

    /// Runs work that sometimes waits, for rows or for the store, once it is the asker's turn. The work ends when the client
    /// disconnects. While others are active, its place becomes free only after a rest as long as the work, up to
    /// [`REST_MAX`]: so one asker's large requests leave the others half of what they use, such as the database's
    /// processors.
    ///
    /// # Errors
    /// 429 if the asker's other requests leave it no turn within ten seconds.
    pub(super) async fn verb<T: Send + 'static>(
        &self,
        owner: ShareOwner,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.verbs.enter(owner.into()).await.ok_or_else(|| Problem::no_turn(VERBS_PATIENCE))?;
        let active = self.active.clone();
        let working = async move {
            let started = Instant::now();
            let done = work.await;
            if active.is_beside(owner.into()) {
                let rest = started.elapsed().min(REST_MAX);
                tokio::spawn(async move {
                    sleep(rest).await;
                    drop(place);
                });
            }
            done
        };
        let working = AbortOnDropHandle::new(self.threads.handle().spawn(working.in_current_span()));
        // Only a panic ends it early, and it is resumed in the asker's own request.
        Ok(working.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic())))
    }

    /// Runs the work for a body or an answer of `bytes`: at once if that is small, otherwise once it is the asker's turn.
    /// Work that has begun continues if the client disconnects, and keeps its place until it is done.
    ///
    /// # Errors
    /// 429 if the asker's other requests leave it no turn within three seconds.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        owner: ShareOwner,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if bytes <= SMALL {
            return Ok(work());
        }
        let place = self.turns.enter(owner.into()).await.ok_or_else(|| Problem::no_turn(PATIENCE))?;
        Ok(self.on_a_thread(Some(place), work).await)
    }

    /// Like [`HeavyWork::run`], for an answer that cannot be refused any more because the request has taken effect: if there is
    /// no turn within the same time, it runs without a place.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        owner: ShareOwner,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes <= SMALL {
            return work();
        }
        self.on_a_thread(self.turns.enter(owner.into()).await, work).await
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        place: Option<Permit>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let working = self.threads.handle().spawn_blocking(move || {
            let _place = place;
            work()
        });
        working.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
    }
}

/// Writes JSON, giving way to other threads.
pub(super) fn to_json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    struct Writer(Vec<u8>);

    impl io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            give_way_in_small_steps();
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut writer = Writer(Vec::with_capacity(128));
    serde_json::to_writer(&mut writer, value)?;
    Ok(writer.0)
}
