use chrono::{DateTime, Utc};
use tracing::{debug, info};

use super::{Timetable, rows};
use crate::engine::Engine;
use crate::error::Result;
use crate::jobs;
use crate::pass::{Order, Pass};

/// What became of a pass's last slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This process put the pass into the queue.
    Queued(DateTime<Utc>),
    /// The slot is taken, but the pass of an earlier one, or one by hand, still runs or waits.
    StillAtIt(DateTime<Utc>),
    /// Another process, or this one before, has taken it; or the schedule is new here and begins with the next one.
    Not,
}

/// Takes the last slot of a pass that has come, unless it is taken. However many slots nobody was there for, it is one
/// run. Any number of processes may ask at the same time: one of them takes the slot, and queues the pass in the same
/// transaction.
///
/// # Errors
/// The database does not answer; the slot is not taken then.
pub async fn take(engine: &Engine, pass: Pass, timetable: &Timetable) -> Result<Taken> {
    let now = engine.clock.now();
    let Some(slot) = timetable.last(now) else { return Ok(Taken::Not) };
    let tx = engine.db.begin().await?;
    let is_ours = rows::take(&tx, pass.name(), slot, now).await?;
    if !is_ours {
        // The first time, there is a row to keep.
        tx.commit().await?;
        debug!(pass.name = pass.name(), %slot, "the slot is taken already");
        return Ok(Taken::Not);
    }
    let job = jobs::enqueue(engine, &tx, &Order::of_slot(pass, slot).job(now)).await?;
    tx.commit().await?;
    if job.is_some() {
        debug!(pass.name = pass.name(), %slot, "the pass is in the queue");
        return Ok(Taken::Queued(slot));
    }
    info!(pass.name = pass.name(), %slot, "the slot passes: the pass still runs, or waits to");
    Ok(Taken::StillAtIt(slot))
}
