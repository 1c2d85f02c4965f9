use serde::Deserialize;

use super::Complaints;

/// The feed of live events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// A reader that nothing is sent to is sent a sign of life this often.
    pub heartbeat_secs: u64,
    /// Looks for events that nobody told this process of; where nobody reads here, at most every two seconds.
    pub poll_millis: u64,
    /// Events that may wait for a slow reader before it is cut off.
    pub buffer: usize,
    /// Streams of one process at a time: of all, of one tenant, and of one user.
    pub readers_max: usize,
    pub readers_per_tenant_max: usize,
    pub readers_per_user_max: usize,
    /// Long polls of one process at a time, likewise. They have places of their own.
    pub waits_max: usize,
    pub waits_per_tenant_max: usize,
    pub waits_per_user_max: usize,
}

impl Feed {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("feed.heartbeat_secs", self.heartbeat_secs);
        complaints.unless((10..=3_600_000).contains(&self.poll_millis), || {
            format!("feed.poll_millis ({}) is not 10 to 3600000, one hour", self.poll_millis)
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
