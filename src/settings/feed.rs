use serde::Deserialize;

use super::Complaints;

/// The feed of live events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Interval between two heartbeats to an idle reader.
    pub heartbeat_secs: u64,
    /// Interval between two polls for events that this process was not notified of; at least two seconds while this process
    /// has no listeners.
    pub poll_millis: u64,
    /// Maximum number of events that may wait for a slow reader before it is disconnected.
    pub buffer: usize,
    /// Maximum number of streams of one process at a time: in total, of one tenant, and of one user.
    pub readers_max: usize,
    pub readers_per_tenant_max: usize,
    pub readers_per_user_max: usize,
    /// The same for long polls, which are counted separately.
    pub waits_max: usize,
    pub waits_per_tenant_max: usize,
    pub waits_per_user_max: usize,
}

impl Feed {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("feed.heartbeat_secs", self.heartbeat_secs);
        complaints.unless((10..=3_600_000).contains(&self.poll_millis), || {
            format!("feed.poll_millis ({}) must be 10 to 3600000 (one hour)", self.poll_millis)
        });
        complaints.at_least_one("feed.buffer", self.buffer as u64);
        for (key, most) in [
            ("feed.readers_max", self.readers_max),
            ("feed.readers_per_tenant_max", self.readers_per_tenant_max),
            ("feed.readers_per_user_max", self.readers_per_user_max),
            ("feed.waits_max", self.waits_max),
            ("feed.waits_per_tenant_max", self.waits_per_tenant_max),
            ("feed.waits_per_user_max", self.waits_per_user_max),
        ] {
            complaints.at_least_one(key, most as u64);
        }
    }
}
