//! The timetable of the passes. A cron string only enqueues a job: of all processes on a database, one takes each slot.

mod rows;
mod status;
mod take;

use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use status::{Status, status};
pub use take::{Taken, take};

use crate::engine::Engine;
use crate::error::{Error, with_causes};
use crate::pass::Pass;
use crate::timetable::Timetable;

/// Why the timetable did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the slots that were missed could not be taken")]
    Missed(#[source] Error),
    #[error("{0}")]
    Cron(String),
    #[error(transparent)]
    Scheduler(#[from] JobSchedulerError),
}

/// The running timetable of this process.
pub struct Schedule {
    scheduler: JobScheduler,
    stop: CancellationToken,
}

/// Takes the slots that were missed while no process ran, then each slot as it comes.
///
/// # Errors
/// See [`StartError`].
pub async fn start(engine: &Engine) -> Result<Schedule, StartError> {
    let scheduler = JobScheduler::new().await?;
    let stop = CancellationToken::new();
    for pass in Pass::ALL {
        let Some(cron) = engine.settings.schedule.of(pass) else { continue };
        let timetable = Timetable::parse(cron).map_err(StartError::Cron)?;
        match take(engine, pass, &timetable).await {
            Ok(_) => {}
            // For example a full disk: the server still serves reads, and the next slot makes up for the missed one.
            Err(error) if error.is_outage() => warn!(pass.name = pass.name(), %error, "a missed slot was not taken"),
            Err(error) => return Err(StartError::Missed(error)),
        }
        for wake in timetable.wakes() {
            scheduler.add(slots(engine, pass, wake, &timetable, &stop)?).await?;
        }
    }
    scheduler.start().await?;
    Ok(Schedule { scheduler, stop })
}

impl Schedule {
    /// Takes no more slots.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = self.scheduler.shutdown().await {
            warn!(%error, "the timetable was not stopped cleanly");
        }
    }
}

/// Returns the scheduler's job for the slots of a pass. If the database does not answer at a slot, the slot is not lost: the
/// next slot or the next start makes up for it.
fn slots(
    engine: &Engine,
    pass: Pass,
    wake: &str,
    timetable: &Timetable,
    stop: &CancellationToken,
) -> Result<Job, JobSchedulerError> {
    let (engine, timetable, stop) = (engine.clone(), timetable.clone(), stop.clone());
    Job::new_async(wake, move |_, _| {
        let (engine, timetable, stop) = (engine.clone(), timetable.clone(), stop.clone());
        Box::pin(async move {
            if stop.is_cancelled() {
                return;
            }
            match take(&engine, pass, &timetable).await {
                Ok(_) => {}
                Err(error) if error.is_outage() => {
                    debug!(pass.name = pass.name(), error = with_causes(&error), "a slot was not taken")
                }
                Err(error) => warn!(pass.name = pass.name(), error = with_causes(&error), "a slot was not taken"),
            }
        })
    })
}
