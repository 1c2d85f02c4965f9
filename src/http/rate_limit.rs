//! The rate limit of each user. Only requests with a valid token count, so that nobody can use up another user's share.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use entity::TenantId;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter, clock};

use crate::caller::Permission;
use crate::clock::Clock;
use crate::settings;
use crate::token::Identity;

/// How often the users who have their whole share again are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What each user has left of their share in this process. Kept in memory only: a restart gives every user a whole share.
pub struct RateLimit {
    limiter: RateLimiter<User, HashMapStateStore<User>, MonotonicClock>,
    swept_at: Mutex<Instant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct User {
    /// `None` for an operator, who counts as one user whatever tenant the token names.
    tenant: Option<TenantId>,
    sub: String,
}

impl RateLimit {
    /// Returns `None` if the rate limit is off.
    pub fn new(settings: &settings::RateLimit, clock: Clock) -> Option<Self> {
        let rate = NonZeroU32::new(settings.requests_per_second)?;
        let burst = NonZeroU32::new(settings.burst)?;
        let swept_at = Mutex::new(clock.instant());
        let limiter =
            RateLimiter::hashmap_with_clock(Quota::per_second(rate).allow_burst(burst), MonotonicClock(clock));
        Some(Self { limiter, swept_at })
    }

    /// Takes one request from the bearer's share.
    ///
    /// # Errors
    /// The time until the next request is accepted, if nothing is left. A refused request takes nothing.
    pub fn take(&self, identity: &Identity) -> Result<(), Duration> {
        self.sweep();
        let tenant = identity.tenant.filter(|_| !identity.permissions.has(Permission::Operator));
        let user = User { tenant, sub: identity.user.clone() };
        self.limiter.check_key(&user).map_err(|refused| refused.wait_time_from(self.now()))
    }

    /// Removes users from memory who have not sent requests lately.
    fn sweep(&self) {
        let now = self.now();
        let is_due = {
            let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = now.saturating_duration_since(*swept_at) >= SWEEP_EVERY;
            if is_due {
                *swept_at = now;
            }
            is_due
        };
        if is_due {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }

    fn now(&self) -> Instant {
        self.limiter.clock().0.instant()
    }
}

/// A steady clock: a correction of the wall clock neither locks users out nor lets them in.
#[derive(Clone)]
struct MonotonicClock(Clock);

impl clock::Clock for MonotonicClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.instant()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;
    use crate::caller::{Brands, Permissions};

    /// One request a second, and `burst` at once.
    fn limit(burst: u32, clock: &Clock) -> RateLimit {
        RateLimit::new(&settings::RateLimit { requests_per_second: 1, burst }, clock.clone()).unwrap()
    }

    fn somebody(tenant: Option<u128>, user: &str, permission: &str) -> Identity {
        Identity {
            tenant: tenant.map(|id| TenantId(uuid::Uuid::from_u128(id))),
            user: user.to_owned(),
            brands: Brands::All,
            permissions: Permissions::parse([permission]),
            expires_at: DateTime::<Utc>::MAX_UTC,
        }
    }

    #[test]
    fn a_share_is_used_up_and_comes_back() {
        let clock = Clock::default();
        let limit = limit(3, &clock);
        let ann = somebody(Some(1), "ann", "*");
        for _ in 0..3 {
            limit.take(&ann).unwrap();
        }
        let wait = limit.take(&ann).unwrap_err();
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limit.take(&ann).unwrap_err() <= wait, "a refusal costs nothing");
        clock.advance(TimeDelta::seconds(1));
        limit.take(&ann).unwrap();
        limit.take(&ann).unwrap_err();
        clock.advance(TimeDelta::hours(1));
        for _ in 0..3 {
            limit.take(&ann).unwrap();
        }
        limit.take(&ann).unwrap_err();
    }

    #[test]
    fn each_user_has_one_share_and_an_operator_is_one_user() {
        let limit = limit(1, &Clock::default());
        let different = [
            somebody(Some(1), "ann", "*"),
            somebody(Some(1), "bob", "*"),
            somebody(Some(2), "ann", "*"),
            somebody(None, "ann", "operator"),
        ];
        for user in &different {
            limit.take(user).unwrap();
        }
        limit.take(&somebody(Some(1), "ann", "uploads.view")).unwrap_err();
        limit.take(&somebody(Some(1), "ann", "operator")).unwrap_err();
    }

    #[test]
    fn who_has_a_whole_share_again_is_forgotten() {
        let clock = Clock::default();
        let limit = limit(200, &clock);
        for number in 0..1_000 {
            limit.take(&somebody(Some(1), &number.to_string(), "*")).unwrap();
        }
        let busy = somebody(Some(1), "busy", "*");
        for _ in 0..200 {
            limit.take(&busy).unwrap();
        }
        assert_eq!(limit.limiter.len(), 1_001);
        clock.advance(TimeDelta::seconds(61));
        limit.take(&busy).unwrap();
        assert_eq!(limit.limiter.len(), 1);
        // Only as much of the used share is back as the elapsed time restores.
        let left = (0..200).take_while(|_| limit.take(&busy).is_ok()).count();
        assert!((60..=62).contains(&left), "{left}");
    }

    #[test]
    fn it_can_be_off() {
        let off = settings::RateLimit { requests_per_second: 0, burst: 50 };
        assert!(RateLimit::new(&off, Clock::default()).is_none());
    }
}
