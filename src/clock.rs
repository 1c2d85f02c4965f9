//! The one place that reads the wall clock for state: session times, expiry, a token's `exp`.
//!
//! Signatures do not use it: a store compares their time with its own wall clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// The clocks of replicas differ by less than this. A recorded time that is further in the future, and cannot be, was
/// written by a clock that was ahead.
pub(crate) const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::hours(1);

/// Returns a store's time, but at most [`CLOCKS_DIFFER_MAX`] ahead of ours. A store whose clock is further ahead would not
/// accept our signatures, so such a `Date` is from a proxy with a wrong clock, which must not age anything.
pub(crate) fn believed(store_time: DateTime<Utc>, our_time: DateTime<Utc>) -> DateTime<Utc> {
    store_time.min(our_time + CLOCKS_DIFFER_MAX)
}

/// A correction of the wall clock by less than this is not reported.
const STEP_MIN: TimeDelta = TimeDelta::minutes(5);

/// Tells the time, plus what tests have added to it. Clones share one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The time that tests have let pass.
    ahead_micros: AtomicI64,
    /// The time by which tests have moved the wall clock forward.
    put_micros: AtomicI64,
    watch: Mutex<Watch>,
}

/// Moments by the wall clock and by the machine's uptime.
#[derive(Debug)]
struct Watch {
    /// The last moment at which the wall clock was found to be behind; the first moment until then.
    believed: (DateTime<Utc>, TimeDelta),
    /// The last moment at which a move of the wall clock was reported; the first moment until then.
    told: (DateTime<Utc>, TimeDelta),
}

impl Default for Watch {
    fn default() -> Self {
        let now = (Utc::now(), uptime());
        Self { believed: now, told: now }
    }
}

impl Clock {
    /// Returns the current time, cut to microseconds: the finest time that both databases keep.
    pub fn now(&self) -> DateTime<Utc> {
        let moved = self.0.ahead_micros.load(Ordering::Relaxed) + self.0.put_micros.load(Ordering::Relaxed);
        DateTime::from_timestamp_micros(Utc::now().timestamp_micros() + moved).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Returns the wall clock's time, but never ahead of the machine's uptime since start. Use it wherever a clock that
    /// jumps forward must not age anything. A clock that is set back is believed.
    pub fn steady_now(&self) -> DateTime<Utc> {
        let mut watch = self.watch();
        let (now, steady_now) = (self.now(), self.since(watch.believed));
        if now < steady_now {
            watch.believed = (now, self.uptime());
        }
        now.min(steady_now)
    }

    /// Returns by how much the wall clock was moved, forward or back, since the last move that was returned; `None` for less
    /// than five minutes.
    pub fn jumped_by(&self) -> Option<TimeDelta> {
        let mut watch = self.watch();
        let now = self.now();
        let by = now - self.since(watch.told);
        (by.abs() >= STEP_MIN).then(|| {
            watch.told = (now, self.uptime());
            by
        })
    }

    /// Returns what the wall clock would show if nobody had moved it since that moment.
    fn since(&self, (wall, uptime): (DateTime<Utc>, TimeDelta)) -> DateTime<Utc> {
        wall + (self.uptime() - uptime)
    }

    fn uptime(&self) -> TimeDelta {
        uptime() + TimeDelta::microseconds(self.0.ahead_micros.load(Ordering::Relaxed))
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current instant, for spans that no correction of the wall clock may change; has no meaning outside of
    /// this process.
    pub fn instant(&self) -> Instant {
        let now = Instant::now();
        let ahead_micros = self.0.ahead_micros.load(Ordering::Relaxed);
        let ahead = Duration::from_micros(ahead_micros.unsigned_abs());
        let moved = if ahead_micros < 0 { now.checked_sub(ahead) } else { now.checked_add(ahead) };
        moved.unwrap_or(now)
    }

    /// Lets time pass, or takes it back if the span is negative; for tests.
    pub fn advance(&self, by: TimeDelta) {
        self.0.ahead_micros.fetch_add(micros(by), Ordering::Relaxed);
    }

    /// Moves the wall clock forward, or back if the span is negative, without time passing; for tests.
    pub fn put(&self, by: TimeDelta) {
        self.0.put_micros.fetch_add(micros(by), Ordering::Relaxed);
    }
}

/// Returns the time since the machine was started, including sleep, as its wall clock shows it after waking.
#[cfg(target_os = "linux")]
fn uptime() -> TimeDelta {
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    TimeDelta::seconds(uptime.tv_sec) + TimeDelta::nanoseconds(uptime.tv_nsec)
}

/// Returns the time since the first call, without sleep. After sleep, the wall clock seems to have been moved forward.
#[cfg(not(target_os = "linux"))]
fn uptime() -> TimeDelta {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    TimeDelta::from_std(FIRST.get_or_init(Instant::now).elapsed()).unwrap_or(TimeDelta::MAX)
}

/// Converts the seconds of a setting: none is more than a hundred years.
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
        assert!(about(clock.steady_now(), began + DAY));
        assert_eq!(clock.jumped_by(), None);
    }

    #[test]
    fn a_clock_that_is_put_forward_makes_nothing_older() {
        let clock = Clock::default();
        let began = clock.now();
        clock.put(DAY);
        assert!(about(clock.now(), began + DAY));
        assert!(about(clock.steady_now(), began));
        clock.advance(DAY);
        assert!(about(clock.steady_now(), began + DAY), "time passes on");
        assert!((clock.jumped_by().unwrap_or_default() - DAY).abs() < TOLERANCE);
        assert_eq!(clock.jumped_by(), None, "it was already returned");
        clock.put(-DAY);
        assert!((clock.jumped_by().unwrap_or_default() + DAY).abs() < TOLERANCE);
        assert!(about(clock.steady_now(), began + DAY) && about(clock.now(), began + DAY));
    }

    #[test]
    fn what_came_while_a_clock_was_behind_is_not_old_once_it_is_put_right() {
        let clock = Clock::default();
        clock.put(-DAY);
        let began = clock.steady_now();
        clock.put(DAY);
        assert!(about(clock.now(), began + DAY));
        assert!(about(clock.steady_now(), began));
    }

    #[test]
    fn a_clock_that_is_put_back_is_believed() {
        let clock = Clock::default();
        let began = clock.now();
        clock.put(-DAY);
        assert!(about(clock.steady_now(), began - DAY) && about(clock.now(), began - DAY));
    }

    #[test]
    fn small_corrections_are_no_news() {
        let clock = Clock::default();
        clock.put(STEP_MIN - TOLERANCE);
        assert_eq!(clock.jumped_by(), None);
        clock.put(TOLERANCE * 2);
        assert!(clock.jumped_by().is_some(), "but they add up");
    }
}
