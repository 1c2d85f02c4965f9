//! Retries: exponential backoff with jitter, up to a limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::error::{Again, Error};

/// How long to keep trying one side: the server, or the store behind the presigned URLs.
pub struct Retry {
    patience: Duration,
    /// One request has used up its patience and none has succeeded since. The others then fail at their first error;
    /// otherwise a dead server would cost the whole patience for each of thousands of files.
    given_up: AtomicBool,
}

impl Retry {
    /// The pauses between the tries of one request add up to at most `patience`.
    pub fn new(patience: Duration) -> Self {
        Self { patience, given_up: AtomicBool::new(false) }
    }

    /// Returns the pauses: 250 ms at first, doubled up to 4 s, each extended by a random jitter of up to its own length.
    pub fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let endless = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(Duration::from_secs(4))
            .with_jitter()
            .without_max_times()
            .build();
        let mut left = self.patience;
        endless.map_while(move |pause| {
            let pause = pause.min(left);
            left -= pause;
            (!pause.is_zero()).then_some(pause)
        })
    }

    /// Calls `attempt` until it succeeds, fails for good, or the patience is used up.
    ///
    /// A time that the other side names (`Retry-After`) replaces a shorter pause; one beyond the patience
    /// ends the tries.
    ///
    /// # Errors
    /// The error of an attempt that fails for good; [`Error::GivenUp`] with the last error if the patience is used up.
    pub async fn run<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut pauses = self.pauses();
        let mut tries = 1;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    self.given_up.store(false, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => error,
            };
            let named = match error.again() {
                Again::No => return Err(error),
                Again::Soon => Duration::ZERO,
                Again::After(named) => named,
            };
            let pause = pauses.next().filter(|_| named <= self.patience && !self.given_up.load(Ordering::Relaxed));
            let Some(pause) = pause else {
                self.given_up.store(true, Ordering::Relaxed);
                return Err(Error::GivenUp { tries, last: Box::new(error) });
            };
            tokio::time::sleep(pause.max(named)).await;
            tries += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pauses_grow_by_chance_and_add_up_to_the_patience() {
        let retry = Retry::new(Duration::from_secs(60));
        let pauses: Vec<_> = retry.pauses().collect();
        assert_eq!(pauses.iter().sum::<Duration>(), Duration::from_secs(60), "{pauses:?}");
        assert!(pauses[0] < Duration::from_secs(1) && pauses[6] >= Duration::from_secs(4), "{pauses:?}");
        assert!(pauses.iter().all(|&pause| pause <= Duration::from_secs(8)), "{pauses:?}");
        assert_ne!(retry.pauses().collect::<Vec<_>>(), pauses, "clients that fail together come back together");
        assert_eq!(Retry::new(Duration::ZERO).pauses().count(), 0);
    }

    #[tokio::test]
    async fn a_refusal_is_not_tried_again_and_trouble_is() {
        let retry = Retry::new(Duration::from_secs(5));
        let mut calls = 0;
        let refused = retry.run(async || -> Result<(), _> {
            calls += 1;
            Err(Error::Changed)
        });
        assert!(matches!(refused.await, Err(Error::Changed)));
        assert_eq!(calls, 1);

        let mut calls = 0;
        let healed = retry.run(async || {
            calls += 1;
            if calls < 3 { Err(Error::Network("reset".into())) } else { Ok(calls) }
        });
        assert_eq!(healed.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn after_one_request_gave_up_the_next_fails_at_once_until_one_gets_through() {
        let retry = Retry::new(Duration::from_millis(600));
        let down = async || -> Result<(), _> { Err(Error::Network("refused".into())) };
        let tries = |result: Result<(), Error>| match result {
            Err(Error::GivenUp { tries, .. }) => tries,
            other => panic!("{other:?}"),
        };
        assert!(tries(retry.run(down).await) > 1);
        assert_eq!(tries(retry.run(down).await), 1);
        retry.run(async || Ok(())).await.unwrap();
        assert!(tries(retry.run(down).await) > 1);
    }

    #[tokio::test]
    async fn a_named_time_beyond_the_patience_ends_the_tries() {
        let retry = Retry::new(Duration::from_secs(2));
        let busy = async || -> Result<(), _> {
            Err(Error::Store { status: 503, said: String::new(), retry_after: Some(3600) })
        };
        assert!(matches!(retry.run(busy).await, Err(Error::GivenUp { tries: 1, .. })));
    }
}
