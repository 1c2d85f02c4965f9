//! Places: a limited number of slots for connections. Tracks which connections hold one and which wait for one, and ends
//! idle connections to make room.
//!
//! All clients share the places of a listener, and each peer has a maximum share of them. A connection on which no
//! request runs keeps its place only while no other connection needs it. So neither idle sockets nor one busy client keep
//! other clients out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// The places of one listener.
pub struct Places {
    began: Instant,
    everyone: Arc<PlacePool>,
    share: usize,
    /// Peers with a connection that holds a place or waits for one.
    peers: Mutex<HashMap<IpAddr, Arc<PlacePool>>>,
    /// Connections that hold a place, by number.
    held: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
}

/// Places of one kind, and the connections that wait for one, first come, first served.
struct PlacePool {
    size: usize,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Connections that hold one or wait for one.
    present: AtomicUsize,
}

impl PlacePool {
    fn new(size: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(size));
        Arc::new(Self { size, free, waiting: AtomicUsize::new(0), present: AtomicUsize::new(0) })
    }

    /// Waits for a place. Calls `make_room` if none is free.
    async fn place(&self, make_room: impl FnOnce()) -> OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return place;
        }
        // Counted before `make_room` searches for an idle connection: one that becomes idle after the search sees the
        // count.
        let _waiting = Count::up(&self.waiting);
        make_room();
        Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// Adds one to a counter until it is dropped.
struct Count<'a>(&'a AtomicUsize);

impl<'a> Count<'a> {
    fn up(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, SeqCst);
        Self(counter)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Places {
    /// `max` places, and at most `share` of them for one peer.
    pub fn new(max: usize, share: usize) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            everyone: PlacePool::new(max),
            share: share.min(max),
            peers: Mutex::default(),
            held: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Waits for a place for a connection from `address`, at most for `patience`.
    ///
    /// If no place is free, the connection that has been idle longest ends: one of this peer if its share is used up, else
    /// one of any peer. As many connections may wait as may hold a place, per peer and in total.
    ///
    /// Returns `None` if too many connections wait, or if no place becomes free in time.
    pub async fn enter(self: &Arc<Self>, address: IpAddr, patience: Duration) -> Option<Place> {
        let presence = Presence::new(self, peer_of(address))?;
        let mine = &presence.pool;
        let (place, share) = timeout(patience, async {
            let share = mine.place(|| self.make_room(Some(mine))).await;
            (self.everyone.place(|| self.make_room(None)).await, share)
        })
        .await
        .ok()?;
        let activity = Arc::new(Activity {
            places: Arc::clone(self),
            pool: Arc::clone(mine),
            requests: AtomicUsize::new(0),
            writing: AtomicBool::new(false),
            idle_since_ms: AtomicU64::new(self.now_ms()),
            leave: CancellationToken::new(),
        });
        let number = self.next.fetch_add(1, SeqCst);
        locked(&self.held).insert(number, Arc::clone(&activity));
        Some(Place { number, activity, _places: (place, share), _presence: presence })
    }

    /// Ends the connection that has been idle longest, to free its file descriptor.
    pub fn free_a_file(&self) {
        self.make_room(None);
    }

    /// Ends the connection that has been idle longest: of one line, or of all if `pool` is `None`.
    fn make_room(&self, pool: Option<&Arc<PlacePool>>) {
        let held = locked(&self.held);
        let idle = held.values().filter(|activity| {
            pool.is_none_or(|pool| Arc::ptr_eq(pool, &activity.pool))
                && activity.is_idle()
                && !activity.leave.is_cancelled()
        });
        if let Some(longest) = idle.min_by_key(|activity| activity.idle_since_ms.load(SeqCst)) {
            longest.leave.cancel();
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Returns the peer that a per-client limit applies to: an IPv4 address, or the /64 network of an IPv6 address, because
/// one host may have all addresses of such a network.
pub fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a connection that holds a place or waits for one, for its peer and in total, until it is dropped.
struct Presence {
    places: Arc<Places>,
    peer: IpAddr,
    pool: Arc<PlacePool>,
}

impl Presence {
    /// Returns `None` if twice as many connections are present as there are places.
    fn new(places: &Arc<Places>, peer: IpAddr) -> Option<Self> {
        let mut peers = locked(&places.peers);
        let pool = peers.get(&peer).cloned().unwrap_or_else(|| PlacePool::new(places.share));
        if [&pool, &places.everyone].iter().any(|pool| pool.present.load(SeqCst) >= 2 * pool.size) {
            return None;
        }
        pool.present.fetch_add(1, SeqCst);
        places.everyone.present.fetch_add(1, SeqCst);
        peers.insert(peer, Arc::clone(&pool));
        Some(Self { places: Arc::clone(places), peer, pool })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut peers = locked(&self.places.peers);
        self.places.everyone.present.fetch_sub(1, SeqCst);
        if self.pool.present.fetch_sub(1, SeqCst) == 1 {
            peers.remove(&self.peer);
        }
    }
}

/// A place, held by a connection until it is dropped.
pub struct Place {
    number: u64,
    pub activity: Arc<Activity>,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    _presence: Presence,
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.activity.places.held).remove(&self.number);
    }
}

/// The state of a connection that holds a place.
pub struct Activity {
    places: Arc<Places>,
    pool: Arc<PlacePool>,
    /// Number of request bodies that are being read and answers that are being sent.
    requests: AtomicUsize,
    /// Whether bytes wait for the client to take them.
    writing: AtomicBool,
    /// Counted from `Places::began`.
    idle_since_ms: AtomicU64,
    leave: CancellationToken,
}

impl Activity {
    /// Records that a request has begun. It runs until every guard returned for it is dropped.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, SeqCst);
        Busy(Arc::clone(self))
    }

    pub fn set_writing(&self, writing: bool) {
        let was_writing = self.writing.swap(writing, SeqCst);
        if was_writing && !writing {
            self.leave_if_wanted();
        }
    }

    /// Ends the connection if it is idle now and another connection came for its place meanwhile.
    fn leave_if_wanted(&self) {
        if self.is_idle() && self.is_wanted() {
            self.leave.cancel();
        }
    }

    /// Whether a request runs: its body is being read, or its answer is being made or handed to the connection.
    pub fn in_request(&self) -> bool {
        self.requests.load(SeqCst) > 0
    }

    /// Whether nothing would be lost if the connection ended now.
    pub fn is_idle(&self) -> bool {
        !self.in_request() && !self.writing.load(SeqCst)
    }

    /// Whether another connection gets this one's place as soon as no request runs on it.
    pub fn is_wanted(&self) -> bool {
        self.leave.is_cancelled() || self.pool.waiting.load(SeqCst) > 0 || self.places.everyone.waiting.load(SeqCst) > 0
    }

    /// Completes when the connection should end.
    pub fn leaving(&self) -> WaitForCancellationFuture<'_> {
        self.leave.cancelled()
    }
}

/// A guard for a running request, or for one half of it: its body or its answer.
pub struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let activity = &self.0;
        activity.idle_since_ms.store(activity.places.now_ms(), SeqCst);
        activity.requests.fetch_sub(1, SeqCst);
        activity.leave_if_wanted();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_peer_is_an_address_or_the_network_of_one_host() {
        assert_eq!(peer_of(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_ne!(peer_of(address("192.0.2.1")), peer_of(address("192.0.2.2")));
        assert_eq!(peer_of(address("2001:db8::1")), peer_of(address("2001:db8::ffff:0:1")));
        assert_ne!(peer_of(address("2001:db8::1")), peer_of(address("2001:db8:0:1::1")));
    }

    #[tokio::test]
    async fn busy_connections_keep_their_places_and_the_share_of_a_peer_is_all_it_has() {
        let places = Places::new(3, 2);
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = places.enter(a, SHORT).await.expect("a free place");
        let second = places.enter(a, SHORT).await.expect("a free place");
        let (_one, two) = (first.activity.begin(), second.activity.begin());
        assert!(places.enter(a, SHORT).await.is_none(), "its share is used up by requests that run");
        assert!(!first.activity.is_wanted(), "a client that gave up no longer waits");
        let other = places.enter(b, SHORT).await.expect("another peer has its share");
        let _three = other.activity.begin();
        assert!(places.enter(b, SHORT).await.is_none(), "all places are taken");

        // While a connection waits, the first request that ends gives up its place.
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.enter(a, Duration::from_secs(60)).await.is_some() }
        });
        while !second.activity.is_wanted() {
            tokio::task::yield_now().await;
        }
        drop(two);
        second.activity.leaving().await;
        drop(second);
        assert!(waiting.await.expect("no panic"));
    }

    #[tokio::test]
    async fn the_connection_that_was_idle_for_longest_makes_room() {
        let places = Places::new(3, 3);
        let peers = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"].map(address);
        let mut seats = Vec::new();
        for peer in &peers[..3] {
            seats.push(places.enter(*peer, SHORT).await.expect("a free place"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(seats[0].activity.begin()); // it was idle longest until now
        let newcomer = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.enter(peers[3], Duration::from_secs(60)).await.is_some() }
        });
        seats[1].activity.leaving().await;
        assert!(!seats[0].activity.leave.is_cancelled() && !seats[2].activity.leave.is_cancelled());
        drop(seats.remove(1));
        assert!(newcomer.await.expect("no panic"));
    }

    #[tokio::test]
    async fn a_client_that_has_taken_its_answer_makes_room() {
        let places = Places::new(1, 1);
        let peer = address("192.0.2.1");
        let seat = places.enter(peer, SHORT).await.expect("a free place");
        let request = seat.activity.begin();
        seat.activity.set_writing(true);
        drop(request);
        let newcomer = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.enter(peer, Duration::from_secs(60)).await.is_some() }
        });
        while !seat.activity.is_wanted() {
            tokio::task::yield_now().await;
        }
        assert!(!seat.activity.leave.is_cancelled(), "its client is still receiving its answer");
        seat.activity.set_writing(false);
        timeout(Duration::from_secs(20), seat.activity.leaving()).await.expect("it is idle now");
        drop(seat);
        assert!(newcomer.await.expect("no panic"));
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let places = Places::new(100, 2);
        let peer = address("192.0.2.1");
        let mut inside = Vec::new();
        for _ in 0..2 {
            let seat = places.enter(peer, SHORT).await.expect("a free place");
            inside.push((seat.activity.begin(), seat));
        }
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let places = Arc::clone(&places);
            waiting.push(tokio::spawn(async move { places.enter(peer, Duration::from_secs(60)).await.is_some() }));
        }
        while locked(&places.peers)[&peer].waiting.load(SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        assert!(places.enter(peer, Duration::from_secs(60)).await.is_none(), "refused at once");
        drop(inside);
        for one in waiting {
            assert!(one.await.expect("no panic"));
        }
        assert!(locked(&places.peers).is_empty() && locked(&places.held).is_empty(), "no entry is left");
        assert_eq!(places.everyone.present.load(SeqCst), 0);
    }
}
