//! Lets other threads run while a thread computes for long.
//!
//! A thread that wakes up to answer a request may wait behind one that computes: Linux lets that one run on for a tick,
//! up to 4 ms, even if another processor is idle. So long computations give up the processor every [`SPELL`], but only
//! while several tenants are active: a tenant that is alone delays only itself.

use std::cell::RefCell;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use crate::turns::ActiveTenants;

/// The longest time without giving up the processor. A yield takes about a microsecond.
const SPELL: Duration = Duration::from_micros(250);
/// Small steps for each look at the clock, which takes as long as a small step.
const SMALL_STEPS: u32 = 16;

/// The state of one thread.
#[derive(Debug)]
pub(crate) struct Yielding {
    active: ActiveTenants,
    last: Instant,
    steps: u32,
}

impl Yielding {
    pub(crate) fn new(active: &ActiveTenants) -> Self {
        Self { active: active.clone(), last: Instant::now(), steps: 0 }
    }

    /// Yields if the last yield is long ago and several tenants are active.
    pub(crate) fn give_way(&mut self) {
        if self.last.elapsed() >= SPELL {
            if self.active.is_several() {
                yield_now();
            }
            self.last = Instant::now();
        }
    }
}

thread_local! {
    static YIELDING: RefCell<Option<Yielding>> = const { RefCell::new(None) };
}

/// Makes the calling thread one on which [`give_way`] has an effect.
pub(crate) fn start_on_this_thread(active: &ActiveTenants) {
    YIELDING.set(Some(Yielding::new(active)));
}

/// Must be called between the steps of computations that may take milliseconds. Has no effect on other threads than those
/// for long work.
pub(crate) fn give_way() {
    YIELDING.with_borrow_mut(|yielding| {
        if let Some(yielding) = yielding {
            yielding.give_way();
        }
    });
}

/// The same between steps of less than a microsecond.
pub(crate) fn give_way_in_small_steps() {
    YIELDING.with_borrow_mut(|yielding| {
        let Some(yielding) = yielding else { return };
        yielding.steps = yielding.steps.wrapping_add(1);
        if yielding.steps.is_multiple_of(SMALL_STEPS) {
            yielding.give_way();
        }
    });
}
