use serde::Deserialize;

use super::Complaints;

/// How background jobs are run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jobs {
    /// Whether this process runs jobs. Other processes on the same database have their own setting.
    pub enabled: bool,
    /// Maximum number of jobs of one kind that this process runs at a time.
    pub concurrency: usize,
    /// A worker that sends no heartbeat for this long loses its job to another.
    pub lease_secs: u64,
    /// Interval between two polls for jobs that this process was not notified of.
    pub poll_millis: u64,
    /// A job that failed this many times is dead.
    pub max_attempts: u32,
    /// The longest pause after the first failure. It doubles with each further failure, up to `backoff_max_secs`.
    pub backoff_secs: u64,
    pub backoff_max_secs: u64,
}

impl Jobs {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("jobs.concurrency", self.concurrency as u64);
        complaints.at_least_one("jobs.poll_millis", self.poll_millis);
        complaints.at_least_one("jobs.max_attempts", u64::from(self.max_attempts));
        complaints.at_least_one("jobs.backoff_secs", self.backoff_secs);
        complaints
            .unless(self.lease_secs <= 86_400, || format!("jobs.lease_secs ({}) is more than a day", self.lease_secs));
        complaints.unless(self.poll_millis <= 3_600_000, || {
            format!("jobs.poll_millis ({}) is more than an hour", self.poll_millis)
        });
        complaints
            .unless(self.concurrency <= 1_000, || format!("jobs.concurrency ({}) is more than 1000", self.concurrency));
        complaints.unless(self.backoff_max_secs <= 31_622_400, || {
            format!("jobs.backoff_max_secs ({}) is more than a year", self.backoff_max_secs)
        });
        // The heartbeat comes three times in a lease.
        complaints.unless(self.lease_secs >= 3, || format!("jobs.lease_secs ({}) is less than 3", self.lease_secs));
        complaints.unless(self.backoff_secs <= self.backoff_max_secs, || {
            format!(
                "jobs.backoff_secs ({}) is more than jobs.backoff_max_secs ({})",
                self.backoff_secs, self.backoff_max_secs
            )
        });
    }
}
