use serde::Deserialize;

use super::Complaints;

/// Downloads of assets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Downloads {
    /// The longest lifetime that a caller may request for a download URL, and the default.
    pub url_ttl_max_secs: u64,
}

impl Downloads {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("downloads.url_ttl_max_secs", self.url_ttl_max_secs);
        // S3 API reference, "Authenticating requests: using query parameters": seven days.
        complaints.unless(self.url_ttl_max_secs <= 604_800, || {
            format!("downloads.url_ttl_max_secs ({}) is more than seven days (604800)", self.url_ttl_max_secs)
        });
    }
}
