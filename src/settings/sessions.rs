use serde::Deserialize;

use super::Complaints;
use super::lifecycle::SECS_MAX;

/// Lifetime and activity of upload sessions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// A session expires this long after its last activity.
    pub expires_after_secs: u64,
    /// A session expires at the latest this long after it was opened.
    pub max_lifetime_secs: u64,
    /// Maximum number of files of one batch that are opened at the same time.
    pub batch_concurrency: usize,
    /// Activity is written at most this often for each session.
    pub activity_write_secs: u64,
}

impl Sessions {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("sessions.expires_after_secs", self.expires_after_secs);
        complaints.at_least_one("sessions.batch_concurrency", self.batch_concurrency as u64);
        complaints.unless(self.max_lifetime_secs <= SECS_MAX, || {
            format!("sessions.max_lifetime_secs ({}) is more than a hundred years", self.max_lifetime_secs)
        });
        complaints.unless(self.expires_after_secs <= self.max_lifetime_secs, || {
            format!(
                "sessions.expires_after_secs ({}) is more than sessions.max_lifetime_secs ({})",
                self.expires_after_secs, self.max_lifetime_secs
            )
        });
        complaints.unless(self.activity_write_secs < self.expires_after_secs, || {
            format!(
                "sessions.activity_write_secs ({}) must be less than sessions.expires_after_secs ({})",
                self.activity_write_secs, self.expires_after_secs
            )
        });
    }
}
