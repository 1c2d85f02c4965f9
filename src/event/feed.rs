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
use crate::error::Result;

/// Events that get their places in one transaction, at most.
pub const BATCH: u32 = 1_000;
/// After a commit of this process, so that many commits at once are one batch.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Looks for new events at least so often, whatever was said or missed; where somebody listens, and where nobody does.
/// A process that nobody listens to leaves its own commits waiting that long, because giving places is work beside the
/// requests. One on another replica finds them.
const POLL_HEARD: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_secs(2);
/// Events that are read at once for those who listen.
pub(super) const PAGE: u64 = 500;

/// Gives the next places, from 1 and without gaps, to at most [`BATCH`] committed events; answers to how many.
///
/// Any number of processes may do so at once; they take turns. A session's events get theirs in the order of `seq`.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] and [`crate::error::Error::Db`]; then nothing was given.
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

/// Where the feed begins for those who listen from now on; before [`run`], and before anybody listens.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] and [`crate::error::Error::Db`].
pub async fn begin(engine: &Engine) -> Result<()> {
    engine.hub.begin(rows::last_position(engine.db.conn()).await?);
    Ok(())
}

/// Gives places and tells listeners, until `stop`; then all streams end. Once for each engine.
pub async fn run(engine: Engine, stop: CancellationToken) {
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
        let is_heard = engine.hub.is_heard();
        tokio::select! {
            () = engine.db.committed(), if is_heard => sleep(DEBOUNCE).await,
            () = heard(&mut listener) => {}
            () = engine.hub.joined() => {}
            () = sleep(if is_heard { POLL_HEARD } else { POLL }) => {}
        }
        // A failure is told once, not every two seconds of an outage.
        match turn(engine).await {
            Ok(()) => was_well = true,
            Err(error) if was_well => {
                warn!(%error, "events could not be put in order; they will be once the database answers");
                was_well = false;
            }
            Err(error) => debug!(%error, "events could not be put in order"),
        }
        if was_well && listener.is_none() {
            // Without it, what other processes do is heard of at the next look.
            listener = engine.db.listen(rows::CHANNEL).await.unwrap_or_else(|error| {
                debug!(%error, "cannot listen to other processes");
                None
            });
        }
    }
}

async fn turn(engine: &Engine) -> Result<()> {
    while sequence(engine).await? == u64::from(BATCH) {}
    publish(engine).await
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
async fn publish(engine: &Engine) -> Result<()> {
    let last = rows::last_position(engine.db.conn()).await?;
    while let Some(after) = engine.hub.behind(last) {
        let span = Span { tenant: None, after, until: Some(last), limit: PAGE };
        let page = rows::placed(engine.db.search_conn(), span).await?;
        // Events may be missing: their sessions were deleted.
        let until = page.last().filter(|_| page.len() as u64 == PAGE).map_or(last, |event| event.position);
        engine.hub.publish(page, until);
    }
    Ok(())
}
