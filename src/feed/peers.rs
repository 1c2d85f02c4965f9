//! The line on which other processes announce that they have recorded events or given them places: LISTEN and NOTIFY of
//! PostgreSQL. SQLite has no notifications; there the line never opens.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::database::{Database, Listener};
use crate::error::Result;
use crate::event::rows::CHANNEL;

/// Pause between two attempts to open the line.
const RETRY: Duration = Duration::from_secs(1);
/// A line that was silent for this long is tested.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the line has to answer the test.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct PeerListener {
    listener: Option<Listener>,
    /// Opens or tests the line, and holds the listener meanwhile. In a task of its own: a new connection may take long or
    /// fail while the existing ones work, and the feed goes on over those.
    tending: Option<AbortOnDropHandle<Result<Option<Listener>>>>,
    /// When [`PeerListener::tend`] is due.
    tend_at: Instant,
}

impl PeerListener {
    /// Returns a closed line; [`PeerListener::tend`] opens it.
    pub(super) fn new() -> Self {
        Self::with(None, Duration::ZERO)
    }

    fn with(listener: Option<Listener>, wait: Duration) -> Self {
        Self { listener, tending: None, tend_at: Instant::now() + wait }
    }

    /// Waits for a message, or until [`PeerListener::tend`] is due, or until the line has been opened: messages sent while it was
    /// down are lost, and the caller must poll. May be dropped and called again; nothing is lost by that.
    pub(super) async fn heard(&mut self) {
        if let Some(tending) = &mut self.tending {
            let tended = tending.await;
            *self = match tended {
                Ok(Ok(listener)) => Self::with(listener, SILENCE),
                Ok(Err(error)) => {
                    debug!(%error, "cannot listen to other processes");
                    Self::with(None, RETRY)
                }
                Err(ended) => {
                    debug!(error = %ended, "the line to other processes was not opened");
                    Self::with(None, RETRY)
                }
            };
            return;
        }
        let Some(listener) = &mut self.listener else { return sleep_until(self.tend_at).await };
        tokio::select! {
            heard = listener.heard() => match heard {
                Ok(()) => self.tend_at = Instant::now() + SILENCE,
                Err(error) => {
                    debug!(%error, "the line to other processes broke");
                    *self = Self::new();
                }
            },
            () = sleep_until(self.tend_at) => {}
        }
    }

    /// If it is due, begins to open the line, or to test it after a long silence.
    pub(super) fn tend(&mut self, db: &Database) {
        if self.tending.is_none() && Instant::now() >= self.tend_at {
            let tended = tended(db.clone(), self.listener.take());
            self.tending = Some(AbortOnDropHandle::new(tokio::spawn(tended)));
        }
    }
}

/// Returns the same listener if it answers, otherwise a new one.
async fn tended(db: Database, listener: Option<Listener>) -> Result<Option<Listener>> {
    if let Some(mut listener) = listener {
        match listener.answers(PATIENCE).await {
            Ok(()) => return Ok(Some(listener)),
            Err(error) => debug!(%error, "the line to other processes is dead"),
        }
    }
    db.listen(CHANNEL).await
}
