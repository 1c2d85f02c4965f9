//! The line on which other processes say that they have recorded events or given them places: on PostgreSQL. On SQLite
//! nobody can say anything, and this is a line that never opens.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::rows::CHANNEL;
use crate::database::{Database, Listener};
use crate::error::Result;

/// Between two attempts to open it.
const RETRY: Duration = Duration::from_secs(1);
/// After so long a silence it is asked whether it is still there, and has so long for the answer.
const SILENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Line {
    listener: Option<Listener>,
    /// Has the listener meanwhile. In a task of its own: a new connection may take long to be had or not be had at all,
    /// while those that are there serve well, and the feed goes on over them.
    tending: Option<AbortOnDropHandle<Result<Option<Listener>>>>,
    /// When [`Line::tend`] has something to do.
    tend_at: Instant,
}

impl Line {
    /// Closed; [`Line::tend`] opens it.
    pub(super) fn new() -> Self {
        Self::with(None, Duration::ZERO)
    }

    fn with(listener: Option<Listener>, wait: Duration) -> Self {
        Self { listener, tending: None, tend_at: Instant::now() + wait }
    }

    /// Waits for a word, or until there is reason to [`Line::tend`] the line, or until it is open: what others said while it
    /// was down was not heard, and is to be looked for. May be dropped and called again; nothing is lost over it.
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

    /// Where it is time to: begins to open the line, or to ask after a long silence whether it is still there.
    pub(super) fn tend(&mut self, db: &Database) {
        if self.tending.is_none() && Instant::now() >= self.tend_at {
            let tended = tended(db.clone(), self.listener.take());
            self.tending = Some(AbortOnDropHandle::new(tokio::spawn(tended)));
        }
    }
}

/// The line as it is, where it answers, or else a new one.
async fn tended(db: Database, listener: Option<Listener>) -> Result<Option<Listener>> {
    if let Some(mut listener) = listener {
        match listener.answers(PATIENCE).await {
            Ok(()) => return Ok(Some(listener)),
            Err(error) => debug!(%error, "the line to other processes is dead"),
        }
    }
    db.listen(CHANNEL).await
}
