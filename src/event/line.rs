//! The line on which other processes say that they have recorded events or given them places: on PostgreSQL. On SQLite
//! nobody can say anything, and this is a line that never opens.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::rows::CHANNEL;
use crate::database::{Database, Listener};

/// Between two attempts to open it.
const RETRY: Duration = Duration::from_secs(1);
/// After so long a silence it is asked whether it is still there, and has so long for the answer.
const SILENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Line {
    listener: Option<Listener>,
    /// When [`Line::tend`] has something to do.
    tend_at: Instant,
}

impl Line {
    /// Closed; [`Line::tend`] opens it.
    pub(super) fn new() -> Self {
        Self { listener: None, tend_at: Instant::now() }
    }

    /// Waits for a word, or until there is reason to [`Line::tend`] it.
    pub(super) async fn heard(&mut self) {
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

    /// Where it is time to: opens it, or asks after a long silence whether it is still there. What others said while it
    /// was down was not heard: look for it afterwards.
    pub(super) async fn tend(&mut self, db: &Database) {
        if Instant::now() < self.tend_at {
            return;
        }
        if let Some(listener) = &mut self.listener {
            match listener.answers(PATIENCE).await {
                Ok(()) => {
                    self.tend_at = Instant::now() + SILENCE;
                    return;
                }
                Err(error) => debug!(%error, "the line to other processes is dead"),
            }
        }
        let (listener, wait) = match db.listen(CHANNEL).await {
            Ok(listener) => (listener, SILENCE),
            Err(error) => {
                debug!(%error, "cannot listen to other processes");
                (None, RETRY)
            }
        };
        *self = Self { listener, tend_at: Instant::now() + wait };
    }
}
