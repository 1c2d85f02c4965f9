//! Fair queues in front of what is scarce: connections of a pool, processors. First come, first served gives most to the
//! tenant that asks for most. Here tenants take turns, however much any of them asks for. And while other tenants are
//! active, a tenant has fewer places at a time than while it is alone: a tenant that comes later must wait for the work
//! that is already running, at the processors and the disks as well.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use entity::TenantId;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Who asks: a tenant, or with `None` the server itself, which takes turns like any tenant.
pub(crate) type Party = Option<TenantId>;

/// How long a tenant counts as active after it has asked for something.
const LATELY: Duration = Duration::from_secs(10);

/// Which tenants were active lately: only as many as it takes to tell whether a tenant is alone. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveTenants(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<(TenantId, Instant)>,
    /// The last one that differs from `last`.
    other: Option<(TenantId, Instant)>,
}

impl ActiveTenants {
    fn note(&self, party: Party) {
        let Some(tenant) = party else { return };
        let mut seen = self.seen();
        let now = Some((tenant, Instant::now()));
        if seen.last.is_some_and(|(last, _)| last != tenant) {
            seen.other = seen.last;
        }
        seen.last = now;
    }

    /// Returns whether another tenant than this one has asked for something in the last ten seconds.
    pub(crate) fn is_beside(&self, party: Party) -> bool {
        let is_other = |(tenant, at)| Some(tenant) != party && is_lately(at);
        let seen = self.seen();
        seen.last.is_some_and(is_other) || seen.other.is_some_and(is_other)
    }

    /// Returns whether two or more tenants have asked for something in the last ten seconds.
    pub(crate) fn is_several(&self) -> bool {
        let seen = self.seen();
        [seen.last, seen.other].into_iter().all(|seen| seen.is_some_and(|(_, at)| is_lately(at)))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_lately(at: Instant) -> bool {
    at.elapsed() < LATELY
}

/// How many of the places one party may have at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerParty {
    pub(crate) alone: usize,
    /// While other tenants are active.
    pub(crate) beside: usize,
}

/// A fixed number of places in front of a shared resource. A free place goes to the party whose turn it is, and within a
/// party to the caller that has waited longest.
#[derive(Debug)]
pub(crate) struct FairQueue {
    state: Mutex<State>,
    each: PerParty,
    active: ActiveTenants,
    /// How long a caller waits.
    patience: Duration,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Parties that have a place or wait for one.
    parties: HashMap<Party, Queue>,
    /// Parties that wait, each once; the first has the next turn.
    turns: VecDeque<Party>,
}

#[derive(Debug, Default)]
struct Queue {
    held: usize,
    /// A caller that has given up is recognized by its closed channel.
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// A place, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` if the place was not handed over.
    turns: Option<Arc<FairQueue>>,
    party: Party,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.give_back(self.party);
        }
    }
}

impl FairQueue {
    /// Creates the places. A party may have at most `each` of them at a time, but at least one.
    pub(crate) fn new(places: usize, each: PerParty, active: &ActiveTenants, patience: Duration) -> Arc<Self> {
        let state = State { free: places, parties: HashMap::new(), turns: VecDeque::new() };
        let each = PerParty { alone: each.alone.max(1), beside: each.beside.max(1) };
        Arc::new(Self { state: Mutex::new(state), each, active: active.clone(), patience })
    }

    fn most(&self, party: Party) -> usize {
        if self.active.is_beside(party) { self.each.beside } else { self.each.alone }
    }

    /// Waits for a place; `None` if there was none in time. May be dropped while it waits.
    pub(crate) async fn enter(self: &Arc<Self>, party: Party) -> Option<Permit> {
        self.active.note(party);
        let waiting = {
            let mut state = self.state();
            let queue = state.parties.entry(party).or_default();
            // Callers that have given up are in front: they have waited longest.
            while queue.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                queue.waiting.pop_front();
            }
            if queue.waiting.is_empty() && queue.held < self.most(party) && state.free > 0 {
                return Some(self.hand_over(&mut state, party));
            }
            let (place, waiting) = oneshot::channel();
            state.parties.entry(party).or_default().waiting.push_back(place);
            if !state.turns.contains(&party) {
                state.turns.push_back(party);
            }
            // A party may wait although a place is free: when the place was given back, the party had its maximum. The
            // maximum may be higher now.
            self.serve_round(&mut state);
            waiting
        };
        timeout(self.patience, waiting).await.ok()?.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held, and each change is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(self: &Arc<Self>, state: &mut State, party: Party) -> Permit {
        state.free -= 1;
        state.parties.entry(party).or_default().held += 1;
        Permit { turns: Some(Arc::clone(self)), party }
    }

    fn give_back(self: &Arc<Self>, party: Party) {
        let mut state = self.state();
        state.take_back(party);
        self.serve_round(&mut state);
        state.forget_if_gone(party);
    }

    /// Hands out the free places, by turns.
    fn serve_round(self: &Arc<Self>, state: &mut State) {
        // Until no party of a whole round may have one more place: a party that is now alone may get several.
        let mut passed_over = 0;
        while state.free > 0 && passed_over < state.turns.len() {
            let Some(party) = state.turns.pop_front() else { break };
            let is_served = self.serve(state, party);
            if state.parties.get(&party).is_some_and(|queue| !queue.waiting.is_empty()) {
                state.turns.push_back(party);
                passed_over = if is_served { 0 } else { passed_over + 1 };
            } else {
                // The party leaves the round, which is shorter without it.
                state.forget_if_gone(party);
            }
        }
    }

    /// Hands a place to the party's first caller that still waits, if the party may have one more. Returns whether it did.
    fn serve(self: &Arc<Self>, state: &mut State, party: Party) -> bool {
        let most = self.most(party);
        while let Some(queue) = state.parties.get_mut(&party).filter(|queue| queue.held < most) {
            let Some(waiting) = queue.waiting.pop_front() else { return false };
            let place = self.hand_over(state, party);
            match waiting.send(place) {
                Ok(()) => return true,
                Err(mut place) => {
                    // The caller has given up. Its place is given back here, where the state is already locked.
                    place.turns = None;
                    state.take_back(party);
                }
            }
        }
        false
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

    fn turns(places: usize, each: usize, patience: Duration) -> Arc<FairQueue> {
        FairQueue::new(places, PerParty { alone: each, beside: each }, &ActiveTenants::default(), patience)
    }

    fn waits(turns: &Arc<FairQueue>, party: Party) -> BoxFuture<'static, Option<Permit>> {
        let turns = Arc::clone(turns);
        let mut waiting = async move { turns.enter(party).await }.boxed();
        assert!((&mut waiting).now_or_never().is_none(), "there is a place already");
        waiting
    }

    fn has(waiting: &mut Pin<Box<dyn Future<Output = Option<Permit>> + Send>>) -> Option<Permit> {
        waiting.now_or_never().map(Option::unwrap)
    }

    #[tokio::test]
    async fn a_quiet_party_has_the_next_place_however_many_wait_before_it() {
        let turns = turns(2, 2, LONG);
        let (noisy, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let mut held = vec![turns.enter(noisy).await.unwrap(), turns.enter(noisy).await.unwrap()];
        let mut crowd: Vec<_> = (0..1_000).map(|_| waits(&turns, noisy)).collect();
        let mut alone = waits(&turns, quiet);
        // The noisy party came first, and has one turn before the quiet one.
        drop(held.pop());
        held.push(has(&mut crowd[0]).unwrap());
        assert!(has(&mut alone).is_none());
        drop(held.pop());
        let place = has(&mut alone).unwrap();
        assert!(has(&mut crowd[1]).is_none());
        // No other party waits, so the noisy one may have all places again.
        drop(place);
        held.push(has(&mut crowd[1]).unwrap());
        drop(held);
        assert!(has(&mut crowd[2]).is_some());
    }

    #[tokio::test]
    async fn a_party_that_has_all_it_may_leaves_the_rest_to_others() {
        let turns = turns(3, 2, LONG);
        let (noisy, quiet) = (Some(TenantId::new()), None);
        let held = [turns.enter(noisy).await.unwrap(), turns.enter(noisy).await.unwrap()];
        let mut third = waits(&turns, noisy);
        let place = turns.enter(quiet).now_or_never().unwrap().unwrap();
        let mut other = waits(&turns, quiet);
        // The noisy party is passed over because it has its maximum, and the other one has its turn.
        drop(place);
        assert!(has(&mut third).is_none());
        assert!(has(&mut other).is_some());
        drop(held);
        assert!(has(&mut third).is_some());
        let state = turns.state();
        assert_eq!((state.free, state.parties.len(), state.turns.len()), (3, 0, 0));
    }

    #[tokio::test]
    async fn a_party_has_more_places_while_it_is_alone() {
        let active = ActiveTenants::default();
        let turns = FairQueue::new(8, PerParty { alone: 4, beside: 1 }, &active, LONG);
        let (noisy, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let enter = |party| turns.enter(party).now_or_never().map(Option::unwrap);
        let mut held: Vec<_> = (0..4).map(|_| enter(noisy).unwrap()).collect();
        let mut crowd: Vec<_> = (0..4).map(|_| waits(&turns, noisy)).collect();
        assert!(!active.is_beside(noisy) && active.is_beside(quiet) && active.is_beside(None));
        // From now on another tenant is active, and a party that has more than its share beside others gets nothing.
        drop(enter(quiet).unwrap());
        assert!(active.is_beside(noisy) && active.is_beside(quiet));
        held.truncate(1);
        assert!(crowd.iter_mut().all(|one| has(one).is_none()));
        drop(held.pop());
        held.extend(crowd.iter_mut().filter_map(has));
        assert_eq!(held.len(), 1);
        // The server's own work does not count as another tenant, and the other tenant stops counting after a while.
        let gone = Instant::now().checked_sub(LATELY).unwrap();
        active.0.lock().unwrap().last.as_mut().unwrap().1 = gone;
        drop(enter(None).unwrap());
        assert!(!active.is_beside(noisy));
        let mut last = waits(&turns, noisy);
        held.extend(crowd.iter_mut().skip(1).filter_map(has));
        assert_eq!(held.len(), 4, "all earlier callers are served at once, before the new one");
        drop(held);
        assert!(has(&mut last).is_some());
    }

    #[tokio::test]
    async fn a_place_passes_parties_of_whom_all_have_given_up() {
        let turns = turns(1, 1, LONG);
        let parties = [(); 4].map(|()| Some(TenantId::new()));
        let held = turns.enter(parties[0]).await.unwrap();
        let gone: Vec<_> = parties[1..3].iter().map(|party| waits(&turns, *party)).collect();
        let mut there = waits(&turns, parties[3]);
        drop(gone);
        drop(held);
        assert!(has(&mut there).is_some());
    }

    #[tokio::test]
    async fn whoever_gives_up_takes_no_place_with_them() {
        let turns = turns(1, 1, LONG);
        let (noisy, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let held = turns.enter(noisy).await.unwrap();
        // One caller gives up in the queue, another one after it was handed a place that it has not seen.
        let left = waits(&turns, quiet);
        let mut handed = waits(&turns, quiet);
        let late = waits(&turns, noisy);
        drop(left);
        drop(held);
        assert!(pin!(turns.enter(quiet)).now_or_never().is_none(), "the place is handed over");
        drop(std::mem::replace(&mut handed, async { None }.boxed()));
        // It is the noisy party's turn, whose caller still waits.
        drop(late.await.unwrap());
        assert!(turns.enter(quiet).now_or_never().unwrap().is_some());
        let state = turns.state();
        assert_eq!((state.free, state.parties.len(), state.turns.len()), (1, 0, 0));
    }

    #[tokio::test]
    async fn nobody_waits_for_longer_than_they_may() {
        let turns = turns(1, 1, Duration::from_millis(20));
        let (noisy, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let held = turns.enter(noisy).await.unwrap();
        assert!(turns.enter(quiet).await.is_none() && turns.enter(noisy).await.is_none());
        drop(held);
        drop(turns.enter(quiet).now_or_never().unwrap().unwrap());
        let state = turns.state();
        assert_eq!((state.free, state.parties.len(), state.turns.len()), (1, 0, 0));
    }
}
