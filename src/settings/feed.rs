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
    /// Readers of one process at a time, long polls among them.
    pub readers_max: usize,
}

impl Feed {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("feed.heartbeat_secs", self.heartbeat_secs);
        complaints.unless((10..=3_600_000).contains(&self.poll_millis), || {
            format!("feed.poll_millis ({}) is not 10 to 3600000, one hour", self.poll_millis)
        });
        complaints.at_least_one("feed.buffer", self.buffer as u64);
        complaints.at_least_one("feed.readers_max", self.readers_max as u64);
    }
}
