//! The listeners to events in this process, and the events that each of them receives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, mem};

use entity::{SessionId, TenantId};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::order::PAGE;
use super::rows::Placed;
use crate::caller::Caller;
use crate::input::Reference;

/// The events that a listener wants: those that its caller may see, narrowed by the filters.
#[derive(Clone, Debug)]
pub struct Interest {
    pub caller: Caller,
    pub batch_reference: Option<Reference>,
    pub session: Option<SessionId>,
}

impl Interest {
    pub fn covers(&self, event: &Placed) -> bool {
        self.caller.sees_one_of(event.tenant_id, event.brand_id, &event.created_by)
            && self.session.is_none_or(|session| session == event.upload_session_id)
            && self
                .batch_reference
                .as_ref()
                .is_none_or(|batch| event.batch_reference.as_deref() == Some(batch.as_str()))
    }
}

/// Forwards events to listeners as they get their places. Stores none: earlier events are in the table.
#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
    joined: Notify,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    /// The last place published to listeners.
    published: i64,
    listeners: Vec<Listening>,
    /// Holders of seats that do not listen yet.
    behind: Vec<Holder>,
}

struct Listening {
    holder: Holder,
    interest: Interest,
    to: mpsc::Sender<Arc<Placed>>,
}

/// The kind of reader. Each kind has its own seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Stream,
    Wait,
}

/// The reader that holds a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    reader: Reader,
    tenant: TenantId,
    user: String,
}

/// How many seats of one kind there are: in all, per tenant and per user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) all: usize,
    pub(super) per_tenant: usize,
    pub(super) per_user: usize,
}

impl Listening {
    /// Sends the events that concern this listener. Returns `false` if more than `buffer` earlier events are unread, or if
    /// the listener is gone.
    fn tell(&self, page: &[Arc<Placed>], buffer: usize) -> bool {
        let waiting = self.to.max_capacity() - self.to.capacity();
        if waiting > buffer {
            return false;
        }
        // The channel has room for a page in addition to the buffer.
        let mut wanted = page.iter().filter(|event| self.interest.covers(event));
        wanted.all(|event| self.to.try_send(Arc::clone(event)).is_ok()) && !self.to.is_closed()
    }
}

/// A seat among the readers of this process, held until it is dropped. Once its holder listens, the seat is free as soon
/// as the listener is cut off: a reader that does not read may not notice that for a long time.
pub(super) struct Seat {
    hub: Arc<Hub>,
    holder: Holder,
    listens: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.listens {
            self.hub.state().no_longer_behind(&self.holder);
        }
    }
}

impl State {
    /// Removes listeners that are gone. While there are no events, nothing else notices them.
    fn forget_gone(&mut self) {
        self.listeners.retain(|listening| !listening.to.is_closed());
    }

    fn no_longer_behind(&mut self, holder: &Holder) {
        if let Some(index) = self.behind.iter().position(|behind| behind == holder) {
            self.behind.swap_remove(index);
        }
    }

    /// Counts at each call: new readers are rare compared with events.
    fn has_room(&self, holder: &Holder, places: Places) -> bool {
        let taken = self.listeners.iter().map(|listening| &listening.holder).chain(&self.behind);
        let of_kind = taken.filter(|taken| taken.reader == holder.reader);
        let (mut all, mut of_tenant, mut of_user) = (0, 0, 0);
        for taken in of_kind {
            let same_tenant = taken.tenant == holder.tenant;
            all += 1;
            of_tenant += usize::from(same_tenant);
            of_user += usize::from(same_tenant && taken.user == holder.user);
        }
        all < places.all && of_tenant < places.per_tenant && of_user < places.per_user
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub(..)")
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held, and each change is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, published: i64) {
        self.state().published = published;
    }

    /// Returns whether this process has listeners.
    pub(super) fn is_heard(&self) -> bool {
        !self.state().listeners.is_empty()
    }

    /// Waits until a listener joins.
    pub(super) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// Returns the place after which listeners miss events, up to `last`; `None` if they miss none. Without listeners,
    /// counts everything up to `last` as published.
    pub(super) fn behind(&self, last: i64) -> Option<i64> {
        let mut state = self.state();
        if state.listeners.is_empty() {
            state.published = state.published.max(last);
        }
        (state.published < last).then_some(state.published)
    }

    /// Sends these events, which are all up to the place `until`, to the listeners they concern. Cuts off each listener
    /// that has more earlier events unread than its buffer holds, and waits for none.
    pub(super) fn publish(&self, page: Vec<Placed>, until: i64) {
        let page: Vec<_> = page.into_iter().map(Arc::new).collect();
        let mut state = self.state();
        state.published = until;
        state.listeners.retain(|listening| {
            let buffer = listening.to.max_capacity() - ROOM_FOR_A_PAGE;
            listening.tell(&page, buffer)
        });
    }

    /// Starts to listen. Returns the last place that the channel does not deliver, and the channel, which ends when the
    /// listener is cut off.
    pub(super) fn join(
        &self,
        seat: &mut Seat,
        interest: Interest,
        buffer: usize,
    ) -> (i64, mpsc::Receiver<Arc<Placed>>) {
        let (to, from) = mpsc::channel(buffer + ROOM_FOR_A_PAGE);
        let mut state = self.state();
        state.forget_gone();
        state.listeners.push(Listening { holder: seat.holder.clone(), interest, to });
        if !mem::replace(&mut seat.listens, true) {
            state.no_longer_behind(&seat.holder);
        }
        self.joined.notify_one();
        (state.published, from)
    }

    /// Takes a seat; `None` if all seats of the kind are taken, or the caller's tenant or the caller has its share of them.
    pub(super) fn seat(self: &Arc<Self>, reader: Reader, caller: &Caller, places: Places) -> Option<Seat> {
        let holder = Holder { reader, tenant: caller.tenant, user: caller.user().to_owned() };
        let mut state = self.state();
        state.forget_gone();
        if !state.has_room(&holder, places) {
            return None;
        }
        state.behind.push(holder.clone());
        drop(state);
        Some(Seat { hub: Arc::clone(self), holder, listens: false })
    }

    /// Ends all streams and waits, current and future ones.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        self.state().listeners.clear();
    }

    /// Waits until the hub is closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

const ROOM_FOR_A_PAGE: usize = PAGE as usize;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::DateTime;
    use entity::upload_session::Status;
    use entity::{AssetId, BrandId};

    use super::*;
    use crate::caller::{Actor, Brands, Permissions};

    fn caller(tenant: TenantId, user: &str) -> Caller {
        Caller { tenant, actor: Actor::User(user.to_owned()), brands: Brands::All, permissions: Permissions::default() }
    }

    fn ann(tenant: TenantId) -> Interest {
        Interest { caller: caller(tenant, "ann"), batch_reference: None, session: None }
    }

    /// Takes a seat for a stream of Ann's; `most` is the limit in all, per tenant and per user.
    fn seat(hub: &Arc<Hub>, tenant: TenantId, most: usize) -> Option<Seat> {
        hub.seat(Reader::Stream, &caller(tenant, "ann"), Places { all: most, per_tenant: most, per_user: most })
    }

    fn page(tenant: TenantId, places: std::ops::RangeInclusive<i64>) -> Vec<Placed> {
        let event = |position| Placed {
            position,
            tenant_id: tenant,
            upload_session_id: SessionId::new(),
            at: DateTime::from_timestamp_micros(position).unwrap(),
            event: "open".to_owned(),
            to_status: Some(Status::Uploading),
            brand_id: BrandId::new(),
            created_by: "ann".to_owned(),
            status: Status::Uploading,
            asset_id: AssetId::new(),
            batch_reference: None,
            client_reference: None,
        };
        places.map(event).collect()
    }

    async fn places(mut from: mpsc::Receiver<Arc<Placed>>) -> Vec<i64> {
        let mut places = Vec::new();
        while let Some(event) = from.recv().await {
            places.push(event.position);
        }
        places
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_cut_off_and_the_others_are_not() {
        let (hub, tenant) = (Arc::new(Hub::default()), TenantId::new());
        let mut seats: Vec<_> = (0..3).map(|_| seat(&hub, tenant, 3).unwrap()).collect();
        let (began, stuck) = hub.join(&mut seats[0], ann(tenant), 3);
        let (_, mut reading) = hub.join(&mut seats[1], ann(tenant), 3);
        // Belongs to another tenant: it gets no events, so none stay unread.
        let (_, elsewhere) = hub.join(&mut seats[2], ann(TenantId::new()), 3);
        assert!(began == 0 && seat(&hub, tenant, 3).is_none());
        // A reader that has read everything before has room for a whole page at once.
        let many = 1..=i64::try_from(PAGE).unwrap();
        hub.publish(page(tenant, many.clone()), *many.end());
        for place in many.clone() {
            assert_eq!(reading.recv().await.unwrap().position, place);
        }
        hub.publish(page(tenant, 501..=502), 502);
        assert_eq!(hub.state().listeners.len(), 2);
        // The seat is free, although the reader has not noticed anything yet.
        assert!(seat(&hub, tenant, 3).is_some());
        // It gets no more events, and its channel ends after those it was given.
        assert_eq!(places(stuck).await, many.collect::<Vec<_>>());
        // As many events as the buffer holds may be unread; one more is too much.
        for (place, listeners) in [(503, 2), (504, 2), (505, 1)] {
            hub.publish(page(tenant, place..=place), place);
            assert_eq!(hub.state().listeners.len(), listeners, "after {place}");
        }
        assert_eq!(places(reading).await, [501, 502, 503, 504]);
        drop(elsewhere);
    }

    #[test]
    fn those_that_went_away_are_forgotten() {
        let (hub, tenant) = (Arc::new(Hub::default()), TenantId::new());
        for _ in 0..100 {
            drop(hub.join(&mut seat(&hub, tenant, 1).unwrap(), ann(tenant), 3));
        }
        assert_eq!(hub.state().listeners.len(), 1);
        assert_eq!(hub.behind(7), Some(0));
        hub.publish(page(tenant, 7..=7), 7);
        assert_eq!(hub.state().listeners.len(), 0);
        assert_eq!((hub.behind(7), hub.behind(9), hub.state().published), (None, None, 9));
    }

    #[test]
    fn a_seat_is_given_back() {
        let (hub, tenant) = (Arc::new(Hub::default()), TenantId::new());
        let (one, two) = (seat(&hub, tenant, 2), seat(&hub, tenant, 2));
        assert!(one.is_some() && two.is_some() && seat(&hub, tenant, 2).is_none());
        drop(one);
        assert!(seat(&hub, tenant, 2).is_some());
        // The same for a holder that listened and is gone.
        let mut two = two.unwrap();
        let (_, from) = hub.join(&mut two, ann(tenant), 3);
        assert!(seat(&hub, tenant, 1).is_none());
        drop((two, from));
        assert!(seat(&hub, tenant, 1).is_some());
    }

    #[test]
    fn each_tenant_and_each_user_has_a_share_and_each_kind_its_own_places() {
        let (hub, acme, globex) = (Arc::new(Hub::default()), TenantId::new(), TenantId::new());
        let places = Places { all: 6, per_tenant: 4, per_user: 2 };
        let take = |reader, tenant, user| hub.seat(reader, &caller(tenant, user), places);
        let mut taken = Vec::new();
        for (tenant, user, has_room) in [
            (acme, "ann", true),
            (acme, "ann", true),
            (acme, "ann", false),
            (acme, "bob", true),
            (acme, "bob", true),
            // The tenant has its share, although this user holds no seat.
            (acme, "cid", false),
            // A user of the same name in another tenant is another user.
            (globex, "ann", true),
            (globex, "ann", true),
            // All seats are taken.
            (globex, "bob", false),
        ] {
            let seat = take(Reader::Stream, tenant, user);
            assert_eq!(seat.is_some(), has_room, "{user} after {}", taken.len());
            taken.extend(seat);
        }
        assert!(take(Reader::Wait, acme, "ann").is_some());
        taken.remove(0);
        assert!(take(Reader::Stream, acme, "cid").is_some());
    }
}
