use serde::Deserialize;

use super::Complaints;

/// How often each user may ask one process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// 0 is as often as they like.
    pub requests_per_second: u32,
    /// Requests at once, before that rate holds.
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
