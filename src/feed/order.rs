//! The order of all events of the deployment.
//!
//! An event gets its place a moment after its commit, from one process at a time, so that places follow the order in
//! which commits became visible: a reader who has seen place 7 never misses place 6.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::peers::PeerListener;
use super::rows::{self, Span};
use crate::engine::Engine;
use crate::error::{Result, with_causes};
use crate::event::rows::CHANNEL;

/// Maximum number of events that get their places in one transaction.
pub const BATCH: u32 = 1_000;
/// The same while several tenants are active: writers wait for each of these transactions.
const BATCH_AMONG_SEVERAL: u32 = 100;
/// Delay after a commit of this process, so that many simultaneous commits form one batch.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Minimum time between two polls while there are no listeners, however short `feed.poll_millis` is: giving places competes
/// with the requests, and nobody waits for the places.
const POLL_UNHEARD: Duration = Duration::from_secs(2);
/// Delay after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Maximum number of events read at once for the listeners.
pub(super) const PAGE: u64 = 500;

/// Gives the next places, from 1 and without gaps, to at most [`BATCH`] committed events. Returns how many got one.
///
/// Any number of processes may do so at once; they take turns. A session's events get their places in the order of `seq`.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] and [`crate::error::Error::Db`]; then no place was given.
pub async fn sequence(engine: &Engine) -> Result<u64> {
    if !rows::any_unplaced(engine.db.conn()).await? {
        return Ok(0);
    }
    let most = if engine.db.active().is_several() { BATCH_AMONG_SEVERAL } else { BATCH };
    let tx = engine.db.begin().await?;
    let last = rows::take_turn(&tx).await?;
    let places = rows::place(&tx, last, most).await?;
    let count = i64::try_from(places.len()).unwrap_or(i64::MAX);
    // An event deleted between the count and the write would leave a gap.
    let whole = places.iter().all(|place| *place <= last + count);
    if places.is_empty() || !whole {
        tx.rollback().await;
        return Ok(0);
    }
    rows::end_turn(&tx, last + count).await?;
    tx.commit().await?;
    Ok(count.unsigned_abs())
}

/// Sets the hub to the last place given: future listeners hear what comes after it. Must be called before [`run`], and
/// before there are listeners.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] and [`crate::error::Error::Db`].
pub async fn begin(engine: &Engine) -> Result<()> {
    engine.hub.begin(rows::last_position(engine.db.conn()).await?);
    Ok(())
}

/// Gives places and notifies listeners until `stop`, then ends all streams. Must run once for each engine.
pub async fn run(engine: Engine, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&engine) => {}
    }
    engine.hub.close();
}

/// Why the loop woke up.
#[derive(Clone, Copy)]
enum Wake {
    /// This process has recorded events.
    Committed,
    /// Another process has recorded events or given places. Or the line to other processes was down or needs tending, and
    /// messages may have been lost. The poll follows once the line is open, so no later message is missed.
    Told,
    /// The poll is due, or a listener has joined.
    Look,
}

async fn follow(engine: &Engine) {
    let own = engine.db.follow();
    let mut line = PeerListener::new();
    let mut was_well = true;
    let mut look_at = Instant::now();
    loop {
        let wake = tokio::select! {
            () = own.committed() => {
                sleep(DEBOUNCE).await;
                Wake::Committed
            }
            () = line.heard() => Wake::Told,
            () = engine.hub.joined() => Wake::Look,
            () = sleep_until(look_at) => Wake::Look,
        };
        line.tend(&engine.db);
        let looks = engine.hub.is_heard() || matches!(wake, Wake::Look);
        let done = match wake {
            _ if looks => turn(engine).await,
            // Listeners may be at another process, which then gives the places.
            Wake::Committed => engine.db.announce(CHANNEL).await,
            Wake::Told | Wake::Look => continue,
        };
        let next = Instant::now() + if done.is_err() { RETRY } else { poll(engine) };
        look_at = if looks { next } else { look_at.min(next) };
        // A failure is a warning once, not every second of an outage.
        match done {
            Ok(()) => was_well = true,
            Err(error) if was_well => {
                warn!(
                    error = with_causes(&error),
                    "events could not be put in order; retrying until the database answers"
                );
                was_well = false;
            }
            Err(error) => debug!(error = with_causes(&error), "events could not be put in order"),
        }
    }
}

/// Returns how long to wait for a message before the next poll.
fn poll(engine: &Engine) -> Duration {
    let poll = Duration::from_millis(engine.settings.feed.poll_millis);
    if engine.hub.is_heard() { poll } else { poll.max(POLL_UNHEARD) }
}

async fn turn(engine: &Engine) -> Result<()> {
    sequence_all(engine).await?;
    publish(engine).await
}

async fn sequence_all(engine: &Engine) -> Result<()> {
    while sequence(engine).await? > 0 {}
    Ok(())
}

/// Skips what happened while nobody listened, which may be much: the first listener hears only what happens from here on.
pub(super) async fn catch_up(engine: &Engine) -> Result<()> {
    if !engine.hub.is_heard() {
        sequence_all(engine).await?;
        engine.hub.behind(rows::last_position(engine.db.conn()).await?);
    }
    Ok(())
}

/// Sends the listeners all events that got a place since the last call.
async fn publish(engine: &Engine) -> Result<()> {
    let last = rows::last_position(engine.db.conn()).await?;
    while let Some(after) = engine.hub.behind(last) {
        let span = Span { tenant: None, after, until: Some(last), limit: PAGE };
        // A read by key (the place): all readers wait for it, so it must not wait for searches.
        let page = rows::placed(engine.db.conn(), span).await?;
        // Events may be missing: their sessions were deleted.
        let until = page.last().filter(|_| page.len() as u64 == PAGE).map_or(last, |event| event.position);
        engine.hub.publish(page, until);
    }
    Ok(())
}
