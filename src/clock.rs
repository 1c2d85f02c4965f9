//! The one place that reads the wall clock for state: session times, expiry, a token's `exp`.
//!
//! Signatures do not come here: a store compares them with its own wall clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// What is further in the future than this, and cannot be, was written by a clock that was ahead: those of replicas differ
/// by less.
pub(crate) const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::hours(1);

/// A store's time, but no further ahead of ours than our signatures would be taken for: the `Date` of a proxy on the way,
/// whose clock is wrong, makes nothing old.
pub(crate) fn believed(store_time: DateTime<Utc>, our_time: DateTime<Utc>) -> DateTime<Utc> {
    store_time.min(our_time + CLOCKS_DIFFER_MAX)
}

/// A wall clock that is put right by less than this is no news.
const STEP_MIN: TimeDelta = TimeDelta::minutes(5);

/// Tells the time, moved on by what a test has added to it. Clones share one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By how much tests have let time pass.
    ahead_micros: AtomicI64,
    /// By how much tests have put the wall clock forward.
    put_micros: AtomicI64,
    watch: Mutex<Watch>,
}

/// Moments by the wall clock and by the machine's uptime.
#[derive(Debug)]
struct Watch {
    /// The last one at which the wall clock was found to be behind; the first one until then.
    believed: (DateTime<Utc>, TimeDelta),
    /// The last one at which somebody was told that it was put.
    told: (DateTime<Utc>, TimeDelta),
}

impl Default for Watch {
    fn default() -> Self {
        let now = (Utc::now(), uptime());
        Self { believed: now, told: now }
    }
}

impl Clock {
    /// Now, cut to microseconds: the finest time that both databases keep.
    pub fn now(&self) -> DateTime<Utc> {
        let moved = self.0.ahead_micros.load(Ordering::Relaxed) + self.0.put_micros.load(Ordering::Relaxed);
        DateTime::from_timestamp_micros(Utc::now().timestamp_micros() + moved).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Now, but since this process began no faster than the machine's uptime: for what a wall clock that was put forward
    /// must not make old. One that was put back is believed.
    pub fn lived(&self) -> DateTime<Utc> {
        let mut watch = self.watch();
        let (now, lived) = (self.now(), self.since(watch.believed));
        if now < lived {
            watch.believed = (now, self.uptime());
        }
        now.min(lived)
    }

    /// By how much the wall clock was put forward, or back, since this was asked before; `None` for less than five minutes.
    pub fn was_put(&self) -> Option<TimeDelta> {
        let mut watch = self.watch();
        let now = self.now();
        let by = now - self.since(watch.told);
        (by.abs() >= STEP_MIN).then(|| {
            watch.told = (now, self.uptime());
            by
        })
    }

    /// What the wall clock would say, had nobody put it since that moment.
    fn since(&self, (wall, uptime): (DateTime<Utc>, TimeDelta)) -> DateTime<Utc> {
        wall + (self.uptime() - uptime)
    }

    fn uptime(&self) -> TimeDelta {
        uptime() + TimeDelta::microseconds(self.0.ahead_micros.load(Ordering::Relaxed))
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, for spans that no correction of the wall clock may stretch; means nothing outside of this process.
    pub fn instant(&self) -> Instant {
        let now = Instant::now();
        let ahead_micros = self.0.ahead_micros.load(Ordering::Relaxed);
        let ahead = Duration::from_micros(ahead_micros.unsigned_abs());
        let moved = if ahead_micros < 0 { now.checked_sub(ahead) } else { now.checked_add(ahead) };
        moved.unwrap_or(now)
    }

    /// Lets time pass, or takes it back by a negative span; for tests.
    pub fn advance(&self, by: TimeDelta) {
        self.0.ahead_micros.fetch_add(micros(by), Ordering::Relaxed);
    }

    /// Puts the wall clock forward, or back by a negative span, without time passing; for tests.
    pub fn put(&self, by: TimeDelta) {
        self.0.put_micros.fetch_add(micros(by), Ordering::Relaxed);
    }
}

/// Since the machine was started. A machine that sleeps grows older, as its wall clock says when it wakes.
#[cfg(target_os = "linux")]
fn uptime() -> TimeDelta {
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    TimeDelta::seconds(uptime.tv_sec) + TimeDelta::nanoseconds(uptime.tv_nsec)
}

/// Since this was asked first. Where the machine sleeps, its wall clock seems to be put forward.
#[cfg(not(target_os = "linux"))]
fn uptime() -> TimeDelta {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    TimeDelta::from_std(FIRST.get_or_init(Instant::now).elapsed()).unwrap_or(TimeDelta::MAX)
}

/// Of a setting: none is more than a hundred years.
pub(crate) fn seconds(secs: u64) -> TimeDelta {
    TimeDelta::seconds(i64::try_from(secs).unwrap_or(i64::MAX / 1_000))
}

fn micros(span: TimeDelta) -> i64 {
    span.num_microseconds().unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: TimeDelta = TimeDelta::days(1);
    const TOLERANCE: TimeDelta = TimeDelta::seconds(10);

    fn about(a: DateTime<Utc>, b: DateTime<Utc>) -> bool {
        (a - b).abs() < TOLERANCE
    }

    #[test]
    fn time_that_passes_is_lived() {
        let clock = Clock::default();
        let began = clock.now();
        clock.advance(DAY);
        assert!(about(clock.now(), began + DAY));
        assert!(about(clock.lived(), began + DAY));
        assert_eq!(clock.was_put(), None);
    }

    #[test]
    fn a_clock_that_is_put_forward_makes_nothing_older() {
        let clock = Clock::default();
        let began = clock.now();
        clock.put(DAY);
        assert!(about(clock.now(), began + DAY));
        assert!(about(clock.lived(), began));
        clock.advance(DAY);
        assert!(about(clock.lived(), began + DAY), "time passes on");
        assert!((clock.was_put().unwrap_or_default() - DAY).abs() < TOLERANCE);
        assert_eq!(clock.was_put(), None, "it was said");
        clock.put(-DAY);
        assert!((clock.was_put().unwrap_or_default() + DAY).abs() < TOLERANCE);
        assert!(about(clock.lived(), began + DAY) && about(clock.now(), began + DAY));
    }

    #[test]
    fn what_came_while_a_clock_was_behind_is_not_old_once_it_is_put_right() {
        let clock = Clock::default();
        clock.put(-DAY);
        let began = clock.lived();
        clock.put(DAY);
        assert!(about(clock.now(), began + DAY));
        assert!(about(clock.lived(), began));
    }

    #[test]
    fn a_clock_that_is_put_back_is_believed() {
        let clock = Clock::default();
        let began = clock.now();
        clock.put(-DAY);
        assert!(about(clock.lived(), began - DAY) && about(clock.now(), began - DAY));
    }

    #[test]
    fn small_corrections_are_no_news() {
        let clock = Clock::default();
        clock.put(STEP_MIN - TOLERANCE);
        assert_eq!(clock.was_put(), None);
        clock.put(TOLERANCE * 2);
        assert!(clock.was_put().is_some(), "but they add up");
    }
}
