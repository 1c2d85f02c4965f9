//! Many operations, one by one, on a database that may be unavailable.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long the other operations still try after one has met the outage: it may have affected that one alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Remembers the outage of the database that one of many attempts has met. Each attempt waits for the database by itself, so
/// a thousand of them would wait for many minutes.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Option<(Instant, Error)>>);

impl Outage {
    /// Makes one attempt. If the database has been unavailable for five seconds, and no attempt has succeeded in between,
    /// returns the outage without an attempt.
    ///
    /// # Errors
    /// The attempt's own; [`Error::DbUnavailable`].
    pub(crate) async fn attempt<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        if let Some(error) = self.lasting() {
            return Err(error);
        }
        let done = attempt.await;
        match &done {
            Ok(_) => *self.met() = None,
            Err(error) => self.note(error),
        }
        done
    }

    /// Records the error of another attempt, perhaps at several operations at once. Only an outage of the database counts.
    pub(crate) fn note(&self, error: &Error) {
        if let Some(error) = error.repeated() {
            self.met().get_or_insert((Instant::now(), error));
        }
    }

    fn lasting(&self) -> Option<Error> {
        let met = self.met();
        let (since, error) = met.as_ref()?;
        error.repeated().filter(|_| since.elapsed() >= PATIENCE)
    }

    fn met(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        // Nothing panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn away() -> Result<()> {
        Err(Error::silent_database())
    }

    #[tokio::test]
    async fn an_outage_that_lasts_is_answered_unasked() {
        let outage = Outage::default();
        let is_asked = async || {
            let mut asked = false;
            let answer = outage
                .attempt(async {
                    asked = true;
                    away().await
                })
                .await;
            assert!(matches!(answer, Err(Error::DbUnavailable(_))));
            asked
        };
        let goes_by = || {
            if let Some((since, _)) = outage.met().as_mut() {
                *since -= PATIENCE;
            }
        };
        assert!(is_asked().await && is_asked().await, "it may have affected one alone");
        goes_by();
        assert!(!is_asked().await && !is_asked().await);

        // An attempt that was under way and succeeds shows that the outage is over.
        *outage.met() = None;
        assert!(is_asked().await);
        assert!(outage.attempt(async { Ok(()) }).await.is_ok());
        goes_by();
        assert!(is_asked().await);
        // An error with another cause says nothing about the database.
        goes_by();
        outage.note(&Error::NotFound);
        assert!(!is_asked().await);
    }
}
