//! Work that costs little more for many than for one: those who come while it is being done for others wait, and then
//! it is done for all of them at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How long the first one waits for others: what is done so is done in the background.
const GATHER: Duration = Duration::from_millis(20);

/// Those who wait for one sort of work. Clones are the same.
pub struct Together<T, R>(Arc<Mutex<Waiting<T, R>>>);

struct Waiting<T, R> {
    queue: Vec<(T, oneshot::Sender<R>)>,
    /// Whether somebody works on earlier ones, and will see to these.
    is_at_work: bool,
}

impl<T, R> Clone for Together<T, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, R> Default for Together<T, R> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { queue: Vec::new(), is_at_work: false })))
    }
}

impl<T, R> std::fmt::Debug for Together<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("waiting", &self.waiting().queue.len()).finish()
    }
}

impl<T, R> Together<T, R> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<T, R>> {
        // Nothing panics while it is held, and each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static, R: Send + 'static> Together<T, R> {
    /// Has it done, together with what others want done at the same time: `work` is given up to `most` of them, and
    /// answers for each in their order. All callers give the same work. It goes on where whoever waits for it is dropped.
    ///
    /// # Panics
    /// Where the work panics, or does not answer for all.
    pub(crate) async fn done<C: Clone + Send + 'static>(
        &self,
        with: &C,
        one: T,
        most: usize,
        work: fn(C, Vec<T>) -> BoxFuture<'static, Vec<R>>,
    ) -> R {
        let (sender, answer) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            waiting.queue.push((one, sender));
            !std::mem::replace(&mut waiting.is_at_work, true)
        };
        if begins {
            let turn = Turn { of: self.clone(), is_over: false };
            let with = with.clone();
            tokio::spawn(async move { turn.work(with, most, work).await });
        }
        answer.await.expect("the work answers for all")
    }
}

/// Who works for all, until nobody waits any more.
struct Turn<T, R> {
    of: Together<T, R>,
    is_over: bool,
}

impl<T, R> Turn<T, R> {
    async fn work<C: Clone>(mut self, with: C, most: usize, work: fn(C, Vec<T>) -> BoxFuture<'static, Vec<R>>) {
        loop {
            sleep(GATHER).await;
            let (ones, senders): (Vec<T>, Vec<_>) = {
                let mut waiting = self.of.waiting();
                // A power of two, so that few different statements are prepared.
                let Some(next) = waiting.queue.len().min(most).checked_ilog2().map(|log| 1 << log) else {
                    waiting.is_at_work = false;
                    self.is_over = true;
                    return;
                };
                waiting.queue.drain(..next).unzip()
            };
            for (sender, answer) in senders.into_iter().zip(work(with.clone(), ones).await) {
                let _ = sender.send(answer); // nobody waits for it any more
            }
        }
    }
}

impl<T, R> Drop for Turn<T, R> {
    fn drop(&mut self) {
        if !self.is_over {
            // It panicked. Whoever waits is told, and the next one begins anew.
            let mut waiting = self.of.waiting();
            waiting.is_at_work = false;
            waiting.queue.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use std::panic::AssertUnwindSafe;
    use tokio::time::timeout;

    use super::*;

    type Sizes = Arc<Mutex<Vec<usize>>>;

    fn doubled(sizes: Sizes, ones: Vec<u64>) -> BoxFuture<'static, Vec<u64>> {
        async move {
            sizes.lock().unwrap().push(ones.len());
            sleep(Duration::from_millis(20)).await;
            assert!(!ones.contains(&13), "a bug");
            ones.into_iter().map(|one| one * 2).collect()
        }
        .boxed()
    }

    #[tokio::test]
    async fn those_that_wait_go_together_and_each_gets_its_own_answer() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let all = join_all((100..200).map(|one| together.done(&sizes, one, 64, doubled))).await;
        assert_eq!(all, (100..200).map(|one| one * 2).collect::<Vec<_>>());
        assert!(sizes.lock().unwrap().len() <= 3, "{sizes:?}");
        assert!(sizes.lock().unwrap().iter().all(|size| *size <= 64), "{sizes:?}");
        // Later ones are not forgotten.
        assert_eq!(together.done(&sizes, 1, 64, doubled).await, 2);
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nobody_along() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let first = together.done(&sizes, 1, 64, doubled);
        assert!(timeout(Duration::from_millis(1), first).await.is_err());
        assert_eq!(together.done(&sizes, 2, 64, doubled).await, 4);
    }

    #[tokio::test]
    async fn a_panic_is_told_to_all_who_wait_and_stops_nobody_after_it() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let asked = |one| AssertUnwindSafe(together.done(&sizes, one, 1, doubled)).catch_unwind();
        let all = join_all([1, 13, 2].map(asked)).await;
        assert_eq!(all.into_iter().map(Result::ok).collect::<Vec<_>>(), [Some(2), None, None]);
        assert_eq!(together.done(&sizes, 3, 1, doubled).await, 6);
    }
}
