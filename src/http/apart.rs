//! Work that takes a processor for longer than a moment: to understand a body of megabytes, to write an answer of as many,
//! verbs over many rows. On a thread that serves connections it would hold up all of them. Here it has threads of its own, for
//! half of the processors, and whoever asks takes turns.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::in_flight::Asker;
use super::problem::Problem;
use crate::threads::Threads;
use crate::turns::{Company, Each, Place, Turns};

/// What is done where it is asked for, in bytes of a body or an answer: a millisecond or so.
const SMALL: usize = 64 << 10;

/// How long work waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// Verbs of one asker that is alone, at a time, for each thread: most of their time is waiting, for rows, or for the store.
/// Beside others one for each thread, since what they wait for is work elsewhere.
const VERBS_EACH: usize = 2;
const VERBS_PATIENCE: Duration = Duration::from_secs(10);

/// What took longer than this has rested in between, or has waited for something.
const REST_MAX: Duration = Duration::from_millis(50);

pub(super) struct Apart {
    /// For what never waits.
    turns: Arc<Turns>,
    verbs: Arc<Turns>,
    company: Company,
    threads: Threads,
}

impl Apart {
    /// As many threads as half of the processors, and half of the turns for one asker.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn new(processors: usize, company: &Company) -> io::Result<Self> {
        let places = (processors / 2).max(1);
        let verbs = places * VERBS_EACH * 2;
        Ok(Self {
            turns: Turns::new(places, Each { alone: places / 2, beside: places / 2 }, company, PATIENCE),
            verbs: Turns::new(verbs, Each { alone: verbs / 2, beside: places }, company, VERBS_PATIENCE),
            company: company.clone(),
            threads: Threads::new("apart", places)?,
        })
    }

    /// Does what waits now and then, for rows or for the store, once it is the asker's turn. It ends where the asker is
    /// gone. Beside others its place is free again only after a rest as long as the work: so one asker's large requests
    /// leave the others half of what they work on, the database's processors for one.
    ///
    /// # Errors
    /// 429 where the asker's other requests leave it no turn in ten seconds.
    pub(super) async fn verb<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.verbs.enter(asker.into()).await.ok_or_else(|| Problem::no_turn(VERBS_PATIENCE))?;
        let company = self.company.clone();
        let working = async move {
            let started = Instant::now();
            let done = work.await;
            if company.is_beside(asker.into()) {
                let rest = started.elapsed().min(REST_MAX);
                tokio::spawn(async move {
                    sleep(rest).await;
                    drop(place);
                });
            }
            done
        };
        let working = AbortOnDropHandle::new(self.threads.handle().spawn(working.in_current_span()));
        // Only a panic ends it early, and that is the asker's.
        Ok(working.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic())))
    }

    /// Does what so many bytes ask for once it is the asker's turn. Work that has begun goes on where the asker is gone,
    /// and keeps its place until it is done.
    ///
    /// # Errors
    /// 429 where the asker's other requests leave it no turn in three seconds.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        asker: Asker,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if bytes <= SMALL {
            return Ok(work());
        }
        let place = self.turns.enter(asker.into()).await.ok_or_else(|| Problem::no_turn(PATIENCE))?;
        Ok(self.on_a_thread(Some(place), work).await)
    }

    /// The same for an answer to what has been done, which cannot be refused any more: it waits as long, and no longer.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        asker: Asker,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes <= SMALL {
            return work();
        }
        self.on_a_thread(self.turns.enter(asker.into()).await, work).await
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        place: Option<Place>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let working = self.threads.handle().spawn_blocking(move || {
            let _place = place;
            work()
        });
        working.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
    }
}
