//! Batches work that costs little more for many callers than for one: callers that come while the work is being done for
//! others wait, and then it is done for all of them at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How long to wait for further callers if the work is done in the background.
const GATHER: Duration = Duration::from_millis(20);

/// The callers that wait for one sort of work. Only callers with the same key are served together. Clones share their
/// state.
pub struct Together<K, T, R> {
    waiting: Arc<Mutex<HashMap<K, Waiting<T, R>>>>,
    /// The runtime that does the work: the one on which this was created. The runtime of the first caller may end before
    /// the others are served.
    home: Option<Handle>,
}

struct Waiting<T, R> {
    queue: Vec<(T, oneshot::Sender<R>)>,
    /// The number of tasks that serve earlier callers, and will serve these.
    at_work: usize,
}

/// How a sort of work is done.
pub(crate) struct Way<C, K, T, R> {
    /// How long a task waits for further callers before each group.
    pub(crate) gather: Duration,
    /// How many groups of one key may be served at a time.
    pub(crate) groups: usize,
    /// How many callers of one key a group may have.
    pub(crate) most: fn(&C, &K) -> usize,
    /// Returns a result for each item, in their order.
    pub(crate) work: fn(C, Vec<T>) -> BoxFuture<'static, Vec<R>>,
}

impl<C, K, T, R> Way<C, K, T, R> {
    /// For work in the background: waits for further callers before each group, and serves one group at a time.
    pub(crate) const fn in_background(
        most: fn(&C, &K) -> usize,
        work: fn(C, Vec<T>) -> BoxFuture<'static, Vec<R>>,
    ) -> Self {
        Self { gather: GATHER, groups: 1, most, work }
    }
}

impl<C, K, T, R> Clone for Way<C, K, T, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, K, T, R> Copy for Way<C, K, T, R> {}

impl<K, T, R> Clone for Together<K, T, R> {
    fn clone(&self) -> Self {
        Self { waiting: Arc::clone(&self.waiting), home: self.home.clone() }
    }
}

impl<K, T, R> Default for Together<K, T, R> {
    fn default() -> Self {
        Self { waiting: Arc::default(), home: Handle::try_current().ok() }
    }
}

impl<K, T, R> std::fmt::Debug for Together<K, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("keys", &self.waiting().len()).finish()
    }
}

impl<K, T, R> Together<K, T, R> {
    fn waiting(&self) -> MutexGuard<'_, HashMap<K, Waiting<T, R>>> {
        // Nothing panics while the lock is held, and each change is complete.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T, R> Together<K, T, R>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Send + 'static,
    R: Send + 'static,
{
    /// Does the work for `one`, together with that of other callers with the same key at the same time. All callers must
    /// pass the same `way`. The work goes on if the caller is dropped.
    ///
    /// # Panics
    /// If the work panics, or does not return a result for each item.
    pub(crate) async fn done<C: Clone + Send + 'static>(&self, key: K, with: &C, one: T, way: Way<C, K, T, R>) -> R {
        let (sender, answer) = oneshot::channel();
        let begins = {
            let mut all = self.waiting();
            let waiting = all.entry(key.clone()).or_insert_with(|| Waiting { queue: Vec::new(), at_work: 0 });
            waiting.queue.push((one, sender));
            let begins = waiting.at_work < way.groups;
            waiting.at_work += usize::from(begins);
            begins
        };
        if begins {
            let turn = Turn { of: self.clone(), key, is_over: false };
            let with = with.clone();
            let work = async move { turn.work(with, way).await };
            match &self.home {
                Some(home) => home.spawn(work),
                None => tokio::spawn(work),
            };
        }
        answer.await.expect("the work answers for all")
    }
}

/// A task that serves the callers of one key until none waits any more.
struct Turn<K: Eq + Hash, T, R> {
    of: Together<K, T, R>,
    key: K,
    is_over: bool,
}

impl<K: Eq + Hash, T, R> Turn<K, T, R> {
    async fn work<C: Clone>(mut self, with: C, way: Way<C, K, T, R>) {
        loop {
            if !way.gather.is_zero() {
                sleep(way.gather).await;
            }
            let most = (way.most)(&with, &self.key);
            let Some((ones, senders)) = self.next(most) else { return };
            for (sender, answer) in senders.into_iter().zip((way.work)(with.clone(), ones).await) {
                let _ = sender.send(answer); // its caller no longer waits
            }
        }
    }

    /// Returns the next group; `None` if no caller waits, which ends the turn.
    fn next(&mut self, most: usize) -> Option<(Vec<T>, Vec<oneshot::Sender<R>>)> {
        let mut all = self.of.waiting();
        // A power of two, so that few different statements are prepared.
        let waiting = all.get_mut(&self.key)?;
        if let Some(log) = waiting.queue.len().min(most).checked_ilog2() {
            return Some(waiting.queue.drain(..1 << log).unzip());
        }
        waiting.at_work -= 1;
        if waiting.at_work == 0 {
            all.remove(&self.key);
        }
        self.is_over = true;
        None
    }
}

impl<K: Eq + Hash, T, R> Drop for Turn<K, T, R> {
    fn drop(&mut self) {
        if !self.is_over {
            // The work panicked. If no other task serves this key, its callers are told, and the next caller begins anew.
            let mut all = self.of.waiting();
            let is_last = all.get_mut(&self.key).is_some_and(|waiting| {
                waiting.at_work -= 1;
                waiting.at_work == 0
            });
            if is_last {
                all.remove(&self.key);
            }
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

    const MANY: Way<Sizes, (), u64, u64> = Way::in_background(|_, ()| 64, doubled);

    fn doubled(sizes: Sizes, ones: Vec<u64>) -> BoxFuture<'static, Vec<u64>> {
        async move {
            sizes.lock().unwrap().push(ones.len());
            sleep(Duration::from_millis(20)).await;
            assert!(!ones.contains(&999), "a bug");
            ones.into_iter().map(|one| one * 2).collect()
        }
        .boxed()
    }

    #[tokio::test]
    async fn those_that_wait_go_together_and_each_gets_its_own_answer() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let all = join_all((100..200).map(|one| together.done((), &sizes, one, MANY))).await;
        assert_eq!(all, (100..200).map(|one| one * 2).collect::<Vec<_>>());
        assert!(sizes.lock().unwrap().len() <= 3, "{sizes:?}");
        assert!(sizes.lock().unwrap().iter().all(|size| *size <= 64), "{sizes:?}");
        // Later callers are served too.
        assert_eq!(together.done((), &sizes, 1, MANY).await, 2);
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nobody_along() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let first = together.done((), &sizes, 1, MANY);
        assert!(timeout(Duration::from_millis(1), first).await.is_err());
        assert_eq!(together.done((), &sizes, 2, MANY).await, 4);
    }

    #[tokio::test]
    async fn a_panic_is_told_to_all_who_wait_and_stops_nobody_after_it() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let asked = |one| {
            AssertUnwindSafe(together.done((), &sizes, one, Way::in_background(|_, ()| 1, doubled))).catch_unwind()
        };
        let all = join_all([1, 999, 2].map(asked)).await;
        assert_eq!(all.into_iter().map(Result::ok).collect::<Vec<_>>(), [Some(2), None, None]);
        assert_eq!(together.done((), &sizes, 3, MANY).await, 6);
    }

    #[tokio::test]
    async fn it_goes_on_where_the_runtime_of_whoever_began_it_ends() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let (theirs, their_sizes) = (together.clone(), Arc::clone(&sizes));
        let first = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let done = async { timeout(GATHER / 2, theirs.done((), &their_sizes, 1, MANY)).await };
            assert!(runtime.block_on(done).is_err());
        });
        sleep(GATHER / 4).await;
        assert_eq!(together.done((), &sizes, 2, MANY).await, 4);
        first.join().unwrap();
    }

    #[tokio::test]
    async fn those_who_come_while_all_groups_are_at_work_share_the_next_one() {
        let (together, sizes) = (Together::default(), Sizes::default());
        let at_once = Way { gather: Duration::ZERO, groups: 2, most: |_, ()| 64, work: doubled };
        let come = |one| {
            let (together, sizes) = (together.clone(), Arc::clone(&sizes));
            tokio::spawn(async move { together.done((), &sizes, one, at_once).await })
        };
        let mut all = vec![];
        for (one, groups) in [(0, 1), (1, 2)] {
            all.push(come(one));
            while sizes.lock().unwrap().len() < groups {
                sleep(Duration::from_millis(1)).await;
            }
        }
        all.extend((2..10).map(come));
        for (one, done) in (0..).zip(all) {
            assert_eq!(done.await.unwrap(), 2 * one);
        }
        assert_eq!(*sizes.lock().unwrap(), [1, 1, 8]);
    }

    #[tokio::test]
    async fn keys_go_apart_and_nothing_is_kept_of_those_that_are_done() {
        let (together, sizes): (Together<u64, _, _>, _) = (Together::default(), Sizes::default());
        let apart = Way { gather: Duration::ZERO, groups: 2, most: |_, _| 64, work: doubled };
        let all = join_all((0..64).map(|one| together.done(one % 2, &sizes, one, apart))).await;
        assert_eq!(all, (0..64).map(|one| one * 2).collect::<Vec<_>>());
        assert_eq!(*sizes.lock().unwrap(), [32, 32]);
        while !together.waiting().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
