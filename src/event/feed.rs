//! The order of all events of the deployment.
//!
//! An event gets its place a moment after its commit, from one process at a time, so that places follow the order in
//! which commits became visible: a reader who has seen place 7 never misses place 6.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::rows::{self, Span};
use crate::database::Listener;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Events that get their places in one transaction, at most.
pub const BATCH: u32 = 1_000;
/// After a commit of this process, so that many commits at once are one batch.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Looks for new events at least so often, whatever was said or missed.
const POLL: Duration = Duration::from_secs(2);
/// Events that are read at once for those who listen.
pub(super) const PAGE: u64 = 500;

/// Gives the next places, from 1 and without gaps, to at most [`BATCH`] committed events; answers to how many.
///
/// Any number of processes may do so at once; they take turns. A session's events get theirs in the order of `seq`.
///
/// # Errors
/// [`Error::DbUnavailable`] and [`Error::Db`]; then nothing was given.
pub async fn sequence(engine: &Engine) -> Result<u64> {
    if !rows::any_unplaced(engine.db.conn()).await? {
        return Ok(0);
    }
    let tx = engine.db.begin().await?;
    let last = rows::take_turn(&tx).await?;
    let places = rows::place(&tx, last, BATCH).await?;
    let count = i64::try_from(places.len()).unwrap_or(i64::MAX);
    // An event that was deleted between being counted and being written would leave a gap.
    let whole = places.iter().all(|place| *place <= last + count);
    if places.is_empty() || !whole {
        tx.rollback().await?;
        return Ok(0);
    }
    rows::end_turn(&tx, last + count).await?;
    tx.commit().await?;
    Ok(count.unsigned_abs())
}

/// Where the feed begins for those who listen from now on.
pub(crate) async fn begin(engine: &Engine) -> Result<()> {
    engine.hub.begin(rows::last_position(engine.db.conn()).await?);
    Ok(())
}

/// Gives places and tells listeners, until `stop`.
pub(crate) async fn run(engine: Engine, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&engine) => {}
    }
    engine.hub.close();
}

async fn follow(engine: &Engine) {
    let mut listener = None;
    let mut was_well = true;
    loop {
        tokio::select! {
            () = engine.db.committed() => sleep(DEBOUNCE).await,
            () = heard(&mut listener) => {}
            () = sleep(POLL) => {}
        }
        // A failure is told once, not every two seconds of an outage.
        match turn(engine, &mut listener).await {
            Ok(()) => was_well = true,
            Err(error) if was_well => {
                warn!(%error, "events could not be put in order; they will be once the database answers");
                was_well = false;
            }
            Err(error) => debug!(%error, "events could not be put in order"),
        }
    }
}

async fn turn(engine: &Engine, listener: &mut Option<Listener>) -> Result<()> {
    while sequence(engine).await? == u64::from(BATCH) {}
    publish(engine).await?;
    if listener.is_none() {
        *listener = engine.db.listen(rows::CHANNEL).await?;
    }
    Ok(())
}

/// Waits for a word of another process; for ever where none can come.
async fn heard(listener: &mut Option<Listener>) {
    let Some(open) = listener else { return std::future::pending().await };
    if let Err(error) = open.heard().await {
        debug!(%error, "the line to other processes broke");
        *listener = None;
    }
}

/// Tells listeners what has got a place since the last time.
async fn publish(engine: &Engine) -> Result<(), Error> {
    let last = rows::last_position(engine.db.conn()).await?;
    while let Some(after) = engine.hub.behind(last) {
        let span = Span { tenant: None, after, until: Some(last), limit: PAGE };
        let page = rows::placed(engine.db.conn(), span).await?;
        // Events may be missing: their sessions were deleted.
        let until = page.last().filter(|_| page.len() as u64 == PAGE).map_or(last, |event| event.position);
        engine.hub.publish(page, until);
    }
    Ok(())
}
