//! Fair scheduling of the requests on one thread. By default a thread polls ready tasks one after the other, and looks for
//! new arrivals only when none is left or after 61 of them: if one tenant has many requests under way, each step of another
//! tenant's request waits for all of them. Here tenants take turns, step by step (a step is one poll of a request's future),
//! and the thread looks for arrivals between any two turns.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage as _, HttpRequest, rt};
use futures_util::FutureExt as _;
use tokio::task::yield_now;

use super::in_flight::ShareOwner;

/// How long steps may take together before the thread looks for arrivals and others have their turns. Steps that are
/// shorter cost less than waiting for a turn.
const SLICE: Duration = Duration::from_micros(100);

thread_local! {
    static TURNS: Turns = Turns::default();
}

/// The asker that the steps of a request count for: [`ShareOwner::Strangers`] until its sender is known.
struct StepOwner(Rc<Cell<ShareOwner>>);

/// Counts all further steps of this request for `owner`.
pub(super) fn name(req: &HttpRequest, owner: ShareOwner) {
    if let Some(StepOwner(of)) = req.extensions().get() {
        of.set(owner);
    }
}

/// Wraps all work for a request: `App::wrap(from_fn(share))`. The steps that make the answer's body count for the same
/// asker.
pub(super) async fn share<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let of = Rc::new(Cell::new(ShareOwner::Strangers));
    req.extensions_mut().insert(StepOwner(Rc::clone(&of)));
    let mut work = next.call(req);
    let steps = Steps { of: Rc::clone(&of), ticket: Rc::default() };
    let response = poll_fn(|cx| steps.step(cx, |cx| work.poll_unpin(cx))).await?;
    Ok(response.map_body(|_, body| {
        let body = body.boxed();
        match body.size() {
            BodySize::Stream => BoxBody::new(Body { body, steps: Steps { of, ticket: Rc::default() } }),
            BodySize::None | BodySize::Sized(_) => body,
        }
    }))
}

/// A body that is made while it is sent.
struct Body {
    body: BoxBody,
    steps: Steps,
}

impl MessageBody for Body {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let Self { body, steps } = &mut *self;
        steps.step(cx, |cx| Pin::new(body).poll_next(cx))
    }
}

/// A request or an answer that is worked on step by step.
struct Steps {
    of: Rc<Cell<ShareOwner>>,
    ticket: Rc<Ticket>,
}

#[derive(Default)]
struct Ticket {
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Resting,
    Waiting,
    /// Its turn has come.
    Called,
}

impl Steps {
    /// Runs a step if it may run now; otherwise queues it, and wakes the task at its turn.
    fn step<T>(&self, cx: &mut Context<'_>, work: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        TURNS.with(|turns| {
            let ticket = &self.ticket;
            let is_due = match ticket.state.get() {
                State::Called => true,
                State::Resting => !turns.is_calling.get(),
                State::Waiting => false,
            };
            if !is_due {
                ticket.waker.replace(Some(cx.waker().clone()));
                if ticket.state.replace(State::Waiting) == State::Resting {
                    turns.line_up(self.of.get(), Rc::clone(ticket));
                }
                return Poll::Pending;
            }
            ticket.state.set(State::Resting);
            let started = Instant::now();
            let outcome = work(cx);
            turns.count(started.elapsed());
            outcome
        })
    }
}

/// The requests that wait on one thread.
#[derive(Default)]
struct Turns {
    waiting: RefCell<HashMap<ShareOwner, VecDeque<Rc<Ticket>>>>,
    /// Askers with waiting requests, each once; the first one has the next turn.
    order: RefCell<VecDeque<ShareOwner>>,
    used: Cell<Duration>,
    /// Whether [`call`] is running, which calls the waiting requests.
    is_calling: Cell<bool>,
}

impl Turns {
    fn line_up(&self, owner: ShareOwner, ticket: Rc<Ticket>) {
        let mut waiting = self.waiting.borrow_mut();
        let line = waiting.entry(owner).or_default();
        if line.is_empty() {
            self.order.borrow_mut().push_back(owner);
        }
        line.push_back(ticket);
    }

    /// Counts a step. After [`SLICE`], the thread looks for arrivals, and then the others have their turns.
    fn count(&self, took: Duration) {
        self.used.set(self.used.get() + took);
        if self.used.get() >= SLICE && !self.is_calling.replace(true) {
            rt::spawn(call());
        }
    }

    /// Calls the next waiting request. Returns whether there was one.
    fn call_next(&self) -> bool {
        loop {
            let Some(owner) = self.order.borrow_mut().pop_front() else { return false };
            let mut waiting = self.waiting.borrow_mut();
            let Some(line) = waiting.get_mut(&owner) else { continue };
            let called = line.pop_front();
            if line.is_empty() {
                waiting.remove(&owner);
            } else {
                self.order.borrow_mut().push_back(owner);
            }
            // A ticket that only this queue still holds belongs to a request that is over.
            if let Some(ticket) = called.filter(|ticket| Rc::strong_count(ticket) > 1) {
                ticket.state.set(State::Called);
                if let Some(waker) = ticket.waker.take() {
                    waker.wake();
                }
                return true;
            }
        }
    }
}

/// Calls the waiting requests one by one until there are none. The thread looks for arrivals before each of them: a task
/// that yields is woken after that.
async fn call() {
    loop {
        yield_now().await;
        let goes_on = TURNS.with(|turns| {
            turns.used.set(Duration::ZERO);
            let called = turns.call_next();
            turns.is_calling.set(called);
            called
        });
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use entity::TenantId;

    use super::*;

    const STEPS: usize = 20;

    /// Runs steps that are longer than a slice, and counts them.
    async fn work(owner: ShareOwner, done: Rc<Cell<usize>>) {
        let steps = Steps { of: Rc::new(Cell::new(owner)), ticket: Rc::default() };
        for _ in 0..STEPS {
            let step = |cx: &mut Context<'_>| {
                steps.step(cx, |_| {
                    std::thread::sleep(2 * SLICE);
                    done.set(done.get() + 1);
                    Poll::Ready(())
                })
            };
            poll_fn(step).await;
            yield_now().await;
        }
    }

    #[actix_web::test]
    async fn a_quiet_tenant_has_every_other_step() {
        let [noisy, quiet] = [(); 2].map(|()| ShareOwner::Tenant(TenantId::new()));
        let (noise, done) = (Rc::default(), Rc::default());
        let crowd: Vec<_> = (0..50).map(|_| rt::spawn(work(noisy, Rc::clone(&noise)))).collect();
        while noise.get() < 10 {
            yield_now().await;
        }
        let before = noise.get();
        work(quiet, Rc::clone(&done)).await;
        let beside = noise.get() - before;
        assert!((STEPS / 2..=2 * STEPS + 2).contains(&beside), "{beside} steps beside {STEPS}");
        for one in crowd {
            one.await.unwrap();
        }
        assert_eq!((noise.get(), done.get()), (50 * STEPS, STEPS));
    }

    #[actix_web::test]
    async fn whoever_goes_takes_no_turn_with_them() {
        let [gone, there] = [(); 2].map(|()| ShareOwner::Tenant(TenantId::new()));
        let (left, done) = (Rc::default(), Rc::default());
        let crowd: Vec<_> = (0..50).map(|_| rt::spawn(work(gone, Rc::clone(&left)))).collect();
        let rest = rt::spawn(work(there, Rc::clone(&done)));
        while left.get() < 10 {
            yield_now().await;
        }
        crowd.iter().for_each(rt::task::JoinHandle::abort);
        rest.await.unwrap();
        assert_eq!(done.get(), STEPS);
        TURNS.with(|turns| {
            assert!(turns.order.borrow().is_empty() && turns.waiting.borrow().is_empty());
        });
    }
}
