use serde::Deserialize;

use super::Complaints;

/// How many requests each user may send to one process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// 0 is unlimited.
    pub requests_per_second: u32,
    /// Requests that a user may send at once before the rate applies.
    pub burst: u32,
}

impl RateLimit {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("rate_limit.burst", u64::from(self.burst));
        for (key, value) in
            [("rate_limit.requests_per_second", self.requests_per_second), ("rate_limit.burst", self.burst)]
        {
            complaints.unless(value <= 1_000_000, || format!("{key} ({value}) is more than 1000000"));
        }
    }
}
