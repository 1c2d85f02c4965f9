use std::sync::Arc;
use std::time::{Duration, Instant};

use entity::{JobId, JobKind};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use super::attempt::{Work, attempt};
use super::share::Turn;
use super::{Lease, rows};
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};

/// Time for the statements that release jobs at shutdown.
const RELEASE_GRACE: Duration = Duration::from_secs(5);

/// Interval between two searches for jobs that a clock that was ahead has left in the future.
const LOOK_AHEAD: Duration = Duration::from_secs(60);

/// How long the worker waits after it is woken. The request that woke it can be answered first, and jobs that come at nearly
/// the same time are claimed by one statement.
const GATHER: Duration = Duration::from_millis(20);

/// The worker of this process.
#[derive(Debug)]
pub struct Workers {
    /// Cancelled to claim no new jobs and to ask running jobs for an early end.
    stop: CancellationToken,
    /// Cancelled to release the jobs that still run.
    give_up: CancellationToken,
    task: JoinHandle<()>,
}

/// Works on jobs of every kind until it is stopped.
pub fn start(engine: &Engine, work: Work) -> Workers {
    let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
    let places = || Arc::new(Semaphore::new(engine.settings.jobs.concurrency));
    let slots = JobKind::ALL.map(|kind| Slots { kind, places: places(), turn: Turn::default() });
    let worker = Worker {
        engine: engine.clone(),
        work,
        slots,
        running: JoinSet::new(),
        stop: stop.clone(),
        give_up: give_up.clone(),
    };
    let task = tokio::spawn(worker.run().instrument(info_span!("jobs")));
    Workers { stop, give_up, task }
}

impl Workers {
    /// Claims no more jobs, asks running jobs for an early end, and waits for them for at most `grace`. Jobs that still run
    /// then are aborted and released, so that other processes need not wait until the leases expire.
    pub async fn stop(mut self, grace: Duration) {
        self.stop.cancel();
        if self.ends_within(grace).await {
            return;
        }
        warn!("jobs that did not end within the grace period are released to other processes");
        self.give_up.cancel();
        if !self.ends_within(RELEASE_GRACE).await {
            // The database does not answer. The leases expire by themselves.
            self.task.abort();
        }
    }

    async fn ends_within(&mut self, grace: Duration) -> bool {
        match tokio::time::timeout(grace, &mut self.task).await {
            Ok(Ok(())) => true,
            Ok(Err(panic)) => {
                error!(error = %panic, "the worker failed");
                true
            }
            Err(_) => false,
        }
    }
}

/// The places for jobs of one kind.
struct Slots {
    kind: JobKind,
    places: Arc<Semaphore>,
    turn: Turn,
}

struct Worker {
    engine: Engine,
    work: Work,
    slots: [Slots; JobKind::ALL.len()],
    running: JoinSet<JobKind>,
    stop: CancellationToken,
    give_up: CancellationToken,
}

impl Worker {
    async fn run(mut self) {
        let poll = Duration::from_millis(self.engine.settings.jobs.poll_millis);
        let mut look_for = JobKind::ALL.to_vec();
        let (mut looked_ahead, mut looked): (Option<Instant>, Option<Instant>) = (None, None);
        while !self.stop.is_cancelled() {
            if looked_ahead.is_none_or(|at| at.elapsed() >= LOOK_AHEAD) {
                looked_ahead = Some(Instant::now());
                self.bring_back().await;
            }
            if looked.is_none_or(|at| at.elapsed() >= poll) {
                looked = Some(Instant::now());
                if let Err(error) = rows::queue_due(&self.engine).await {
                    report(&error);
                }
            }
            if let Err(error) = self.take(&look_for).await {
                report(&error);
            }
            look_for = tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.engine.wake.notified() => {
                    tokio::time::sleep(GATHER).await;
                    JobKind::ALL.to_vec()
                }
                () = tokio::time::sleep(poll) => JobKind::ALL.to_vec(),
                // Places became free; nothing else has changed. Attempts do not panic: they record panics of the work.
                Some(ended) = self.running.join_next() => self.ended_with(ended).await,
            };
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Returns the kinds of the jobs that ended with this one or shortly after it. Small jobs end together, and one
    /// statement then claims the next ones.
    async fn ended_with(&mut self, ended: std::result::Result<JobKind, JoinError>) -> Vec<JobKind> {
        tokio::time::sleep(GATHER).await;
        let mut kinds: Vec<_> = ended.into_iter().collect();
        while let Some(ended) = self.running.try_join_next() {
            kinds.extend(ended);
        }
        kinds
    }

    async fn bring_back(&self) {
        match rows::bring_back(&self.engine).await {
            Ok(0) => {}
            Ok(jobs) => warn!(jobs, "jobs that a clock that was ahead has left in the future are due now"),
            Err(error) => report(&error),
        }
    }

    /// Claims and starts due jobs of these kinds, as many as there are free places.
    async fn take(&mut self, kinds: &[JobKind]) -> Result<()> {
        let with_places = self.slots.iter().filter(|slots| slots.places.available_permits() > 0);
        let wanted: Vec<_> = with_places.map(|slots| slots.kind).filter(|kind| kinds.contains(kind)).collect();
        // Mostly there are jobs of one kind, or none.
        let kinds = match wanted[..] {
            [] | [_] => wanted,
            _ => rows::waiting(&self.engine, &wanted).await?,
        };
        for Slots { kind, places, turn } in &mut self.slots {
            let (kind, free) = (*kind, places.available_permits());
            if free == 0 || !kinds.contains(&kind) {
                continue;
            }
            for lease in rows::claim(&self.engine, kind, free, &[], turn).await? {
                // Places are taken only here, so each claimed job gets one.
                let place = Arc::clone(places).try_acquire_owned().ok();
                let (engine, work) = (self.engine.clone(), self.work);
                let (stop, give_up) = (self.stop.clone(), self.give_up.clone());
                self.running.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        () = attempt(&engine, &lease, work, &stop) => {}
                        () = give_up.cancelled() => release(&engine, &lease).await,
                    }
                    kind
                });
            }
        }
        Ok(())
    }
}

async fn release(engine: &Engine, lease: &Lease) {
    match rows::release(engine, lease).await {
        Ok(_) => warn!(job.id = %lease.job.id, job.kind = lease.job.kind, "the job is released to other processes"),
        Err(error) => report(&error),
    }
}

fn report(error: &Error) {
    if error.is_outage() {
        debug!(error = with_causes(&error), "the job queue cannot be reached");
    } else {
        error!(error = with_causes(&error), "the job queue cannot be read");
    }
}

/// Does all due jobs, including those that they enqueue, and returns the number of attempts. A job that fails is not tried
/// again, even if it becomes due.
///
/// # Errors
/// The database does not answer. A failure of a job itself is recorded with the job.
pub async fn work_off(engine: &Engine, work: Work) -> Result<u64> {
    let mut tried: Vec<JobId> = Vec::new();
    loop {
        let before = tried.len();
        rows::queue_due(engine).await?;
        for kind in JobKind::ALL {
            let mut turn = Turn::default();
            for lease in rows::claim(engine, kind, engine.settings.jobs.concurrency, &tried, &mut turn).await? {
                tried.push(lease.job.id);
                attempt(engine, &lease, work, &CancellationToken::new()).await;
            }
        }
        if tried.len() == before {
            return Ok(before as u64);
        }
    }
}
