use chrono::{DateTime, Utc};
use tracing::{debug, info};

use super::rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::jobs;
use crate::pass::{Pass, PassRequest};
use crate::timetable::Timetable;

/// The outcome of [`take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This process put the pass into the queue.
    Queued(DateTime<Utc>),
    /// This process took the slot, but an earlier run of the pass, or one by hand, still runs or waits.
    StillRunning(DateTime<Utc>),
    /// The slot was taken before, by this process or another; or the schedule is new and starts with the next slot.
    NotTaken,
}

/// Takes the latest slot of a pass that is due, unless it is taken already. Any number of missed slots leads to one run. Any
/// number of processes may call this at the same time: one of them takes the slot and enqueues the pass in the same
/// transaction.
///
/// # Errors
/// The database does not answer; the slot is not taken then.
pub async fn take(engine: &Engine, pass: Pass, timetable: &Timetable) -> Result<Taken> {
    let now = engine.clock.now();
    let Some(slot) = timetable.last(now) else { return Ok(Taken::NotTaken) };
    let tx = engine.db.begin().await?;
    let is_ours = rows::take(&tx, pass.name(), slot, now).await?;
    if !is_ours {
        // On the first call, the new row must be kept.
        tx.commit().await?;
        debug!(pass.name = pass.name(), %slot, "the slot is taken already");
        return Ok(Taken::NotTaken);
    }
    let job = jobs::enqueue(engine, &tx, &PassRequest::of_slot(pass, slot).job(now)).await?;
    tx.commit().await?;
    if job.is_some() {
        debug!(pass.name = pass.name(), %slot, "the pass is in the queue");
        return Ok(Taken::Queued(slot));
    }
    info!(pass.name = pass.name(), %slot, "the slot is skipped: the pass still runs or waits");
    Ok(Taken::StillRunning(slot))
}
