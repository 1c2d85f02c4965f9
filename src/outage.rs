//! Many to do, one by one, beside a database that may be away.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long others of the many still try after one has met the outage: it may have been in the way of that one alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What attempts at many things have met of an outage of the database. Each attempt waits for the database by itself, so a
/// thousand that all tried would wait for many minutes.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Option<(Instant, Error)>>);

impl Outage {
    /// Makes one attempt. Once the database has been away for five seconds, and no attempt has succeeded in between, it
    /// answers the outage unasked.
    ///
    /// # Errors
    /// The attempt's; [`Error::DbUnavailable`].
    pub(crate) async fn attempt<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        if let Some(error) = self.lasting() {
            return Err(error);
        }
        let done = attempt.await;
        match &done {
            Ok(_) => *self.met() = None,
            Err(error) => self.heed(error),
        }
        done
    }

    /// Takes note of what another attempt, at several at once perhaps, has failed for.
    pub(crate) fn heed(&self, error: &Error) {
        if let Some(error) = error.again() {
            self.met().get_or_insert((Instant::now(), error));
        }
    }

    fn lasting(&self) -> Option<Error> {
        let met = self.met();
        let (since, error) = met.as_ref()?;
        error.again().filter(|_| since.elapsed() >= PATIENCE)
    }

    fn met(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        // Nothing panics while it is held.
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
        assert!(is_asked().await && is_asked().await, "it may have been in the way of one alone");
        goes_by();
        assert!(!is_asked().await && !is_asked().await);

        // Whoever was under way then, and succeeded, shows that it is over.
        *outage.met() = None;
        assert!(is_asked().await);
        assert!(outage.attempt(async { Ok(()) }).await.is_ok());
        goes_by();
        assert!(is_asked().await);
        // What is refused for a reason of its own says nothing of the database.
        goes_by();
        outage.heed(&Error::NotFound);
        assert!(!is_asked().await);
    }
}
