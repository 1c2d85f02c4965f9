//! The one place that reads the wall clock for state: session times, expiry, a token's `exp`.
//!
//! Signatures do not come here: a store compares them with its own wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the time, moved on by what a test has added to it. Clones share one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_micros: Arc<AtomicI64>,
}

impl Clock {
    /// Now, cut to microseconds: the finest time that both databases keep.
    pub fn now(&self) -> DateTime<Utc> {
        let micros = Utc::now().timestamp_micros() + self.ahead_micros.load(Ordering::Relaxed);
        DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Now, for spans that no correction of the wall clock may stretch; means nothing outside of this process.
    pub fn instant(&self) -> Instant {
        let now = Instant::now();
        let ahead_micros = self.ahead_micros.load(Ordering::Relaxed);
        let ahead = Duration::from_micros(ahead_micros.unsigned_abs());
        let moved = if ahead_micros < 0 { now.checked_sub(ahead) } else { now.checked_add(ahead) };
        moved.unwrap_or(now)
    }

    /// Moves this clock on, or back by a negative span.
    pub fn advance(&self, by: TimeDelta) {
        self.ahead_micros.fetch_add(by.num_microseconds().unwrap_or(i64::MAX / 2), Ordering::Relaxed);
    }
}
