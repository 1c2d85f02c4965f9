//! Who is next, where there is less than is asked for: connections of a pool, processors. First come, first served gives
//! the most to whoever asks for the most; here tenants take turns, however much any of them asks for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entity::TenantId;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Who asks: a tenant, or with `None` the server itself, which has its turns like any tenant.
pub(crate) type Party = Option<TenantId>;

/// The places in front of what is shared. A place that is free goes to the party whose turn it is, and within a party to
/// whoever has waited longest.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    /// Places that one party may have at a time.
    each: usize,
    /// How long anybody waits.
    patience: Duration,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Those that have a place or wait for one.
    parties: HashMap<Party, Queue>,
    /// Parties of which somebody waits, each once; the first has the next turn.
    turns: VecDeque<Party>,
}

#[derive(Debug, Default)]
struct Queue {
    held: usize,
    /// Those that have given up are found by their closed channels.
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None` where the place was not handed over.
    turns: Option<Arc<Turns>>,
    party: Party,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.give_back(self.party);
        }
    }
}

impl Turns {
    /// No party has more than `each` of the places at a time.
    pub(crate) fn new(places: usize, each: usize, patience: Duration) -> Arc<Self> {
        let state = State { free: places, parties: HashMap::new(), turns: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state), each: each.max(1), patience })
    }

    /// Waits for a place; `None` where there was none in time. May be dropped while it waits.
    pub(crate) async fn enter(self: &Arc<Self>, party: Party) -> Option<Place> {
        let waiting = {
            let mut state = self.state();
            let queue = state.parties.entry(party).or_default();
            // A place that is free has nobody who waits for it, but those that have all that they may.
            if queue.held < self.each && state.free > 0 {
                return Some(self.hand_over(&mut state, party));
            }
            let (place, waiting) = oneshot::channel();
            let queue = state.parties.entry(party).or_default();
            // Whoever has given up has waited longest.
            while queue.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                queue.waiting.pop_front();
            }
            queue.waiting.push_back(place);
            if !state.turns.contains(&party) {
                state.turns.push_back(party);
            }
            waiting
        };
        timeout(self.patience, waiting).await.ok()?.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and each change is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(self: &Arc<Self>, state: &mut State, party: Party) -> Place {
        state.free -= 1;
        state.parties.entry(party).or_default().held += 1;
        Place { turns: Some(Arc::clone(self)), party }
    }

    fn give_back(self: &Arc<Self>, party: Party) {
        let mut state = self.state();
        state.take_back(party);
        // One round is enough: a party that was passed over has all that it may, whatever the others are given.
        for _ in 0..state.turns.len() {
            if state.free == 0 {
                break;
            }
            let Some(party) = state.turns.pop_front() else { break };
            self.serve(&mut state, party);
            if state.parties.get(&party).is_some_and(|queue| !queue.waiting.is_empty()) {
                state.turns.push_back(party);
            } else {
                state.forget_if_gone(party);
            }
        }
        state.forget_if_gone(party);
    }

    /// Hands a place to the first of a party that still waits, where the party may have one more.
    fn serve(self: &Arc<Self>, state: &mut State, party: Party) {
        while let Some(queue) = state.parties.get_mut(&party).filter(|queue| queue.held < self.each) {
            let Some(waiting) = queue.waiting.pop_front() else { return };
            let place = self.hand_over(state, party);
            match waiting.send(place) {
                Ok(()) => return,
                Err(mut place) => {
                    // It has given up. Its place is given back here, where the state is at hand.
                    place.turns = None;
                    state.take_back(party);
                }
            }
        }
    }
}

impl State {
    fn take_back(&mut self, party: Party) {
        self.free += 1;
        if let Some(queue) = self.parties.get_mut(&party) {
            queue.held -= 1;
        }
    }

    fn forget_if_gone(&mut self, party: Party) {
        if self.parties.get(&party).is_some_and(|queue| queue.held == 0 && queue.waiting.is_empty()) {
            self.parties.remove(&party);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::pin::{Pin, pin};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn waits(turns: &Arc<Turns>, party: Party) -> BoxFuture<'static, Option<Place>> {
        let turns = Arc::clone(turns);
        let mut waiting = async move { turns.enter(party).await }.boxed();
        assert!((&mut waiting).now_or_never().is_none(), "there is a place already");
        waiting
    }

    fn has(waiting: &mut Pin<Box<dyn Future<Output = Option<Place>> + Send>>) -> Option<Place> {
        waiting.now_or_never().map(Option::unwrap)
    }

    #[tokio::test]
    async fn a_quiet_party_has_the_next_place_however_many_wait_before_it() {
        let turns = Turns::new(2, 2, LONG);
        let (noisy, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let mut held = vec![turns.enter(noisy).await.unwrap(), turns.enter(noisy).await.unwrap()];
        let mut crowd: Vec<_> = (0..1_000).map(|_| waits(&turns, noisy)).collect();
        let mut alone = waits(&turns, quiet);
        // The noisy one was there before, and has one turn first.
        drop(held.pop());
        held.push(has(&mut crowd[0]).unwrap());
        assert!(has(&mut alone).is_none());
        drop(held.pop());
        let place = has(&mut alone).unwrap();
        assert!(has(&mut crowd[1]).is_none());
        // Nobody else waits, so all places are the noisy one's again.
        drop(place);
        held.push(has(&mut crowd[1]).unwrap());
        drop(held);
        assert!(has(&mut crowd[2]).is_some());
    }

    #[tokio::test]
    async fn a_party_that_has_all_it_may_leaves_the_rest_to_others() {
        let turns = Turns::new(3, 2, LONG);
        let (noisy, quiet) = (Some(TenantId::new()), None);
        let held = [turns.enter(noisy).await.unwrap(), turns.enter(noisy).await.unwrap()];
        let mut third = waits(&turns, noisy);
        let place = turns.enter(quiet).now_or_never().unwrap().unwrap();
        let mut other = waits(&turns, quiet);
        // Passed over, for it may have no more, and the other one has its turn.
        drop(place);
        assert!(has(&mut third).is_none());
        assert!(has(&mut other).is_some());
        drop(held);
        assert!(has(&mut third).is_some());
        let state = turns.state();
        assert_eq!((state.free, state.parties.len(), state.turns.len()), (3, 0, 0));
    }

    #[tokio::test]
    async fn whoever_gives_up_takes_no_place_with_them() {
        let turns = Turns::new(1, 1, LONG);
        let (noisy, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let held = turns.enter(noisy).await.unwrap();
        // One gives up in the queue, one after it was handed a place that it has not seen, one after its time.
        let left = waits(&turns, quiet);
        let mut handed = waits(&turns, quiet);
        let late = waits(&turns, noisy);
        drop(left);
        drop(held);
        assert!(pin!(turns.enter(quiet)).now_or_never().is_none(), "the place is handed over");
        drop(std::mem::replace(&mut handed, async { None }.boxed()));
        // The noisy one's turn; it is in time.
        drop(late.await.unwrap());
        assert!(turns.enter(quiet).now_or_never().unwrap().is_some());
        let state = turns.state();
        assert_eq!((state.free, state.parties.len(), state.turns.len()), (1, 0, 0));
    }

    #[tokio::test]
    async fn nobody_waits_for_longer_than_they_may() {
        let turns = Turns::new(1, 1, Duration::from_millis(20));
        let (noisy, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let held = turns.enter(noisy).await.unwrap();
        assert!(turns.enter(quiet).await.is_none() && turns.enter(noisy).await.is_none());
        drop(held);
        drop(turns.enter(quiet).now_or_never().unwrap().unwrap());
        let state = turns.state();
        assert_eq!((state.free, state.parties.len(), state.turns.len()), (1, 0, 0));
    }
}
