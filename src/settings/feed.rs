use serde::Deserialize;

use super::Complaints;

/// The feed of live events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// A reader that nothing is sent to is sent a sign of life this often.
    pub heartbeat_secs: u64,
    /// Events that may wait for a slow reader before it is cut off.
    pub buffer: usize,
    /// Readers of one process at a time, long polls among them.
    pub readers_max: usize,
}

impl Feed {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.at_least_one("feed.heartbeat_secs", self.heartbeat_secs);
        complaints.at_least_one("feed.buffer", self.buffer as u64);
        complaints.at_least_one("feed.readers_max", self.readers_max as u64);
    }
}
