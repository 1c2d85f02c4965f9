use std::path::PathBuf;

use serde::Deserialize;

use super::{Complaints, Secret};

/// What the server keeps by itself where no outside database or store is set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// Database, objects and secrets.
    pub data_dir: PathBuf,
    /// Where the store listens.
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
    /// Where browsers reach the store, if that is elsewhere; presigned URLs name it.
    pub public_url: Option<String>,
    /// Connections to the store at a time; the server's own calls have places apart.
    pub max_connections: usize,
    /// Of these, for one IPv4 address or one IPv6 network of 64 bits.
    pub max_connections_per_address: usize,
    /// Least rate of a body, sent or taken; 0 for any.
    pub min_bytes_per_second: u32,
    pub bucket: String,
    /// Made at the first start and kept in `data_dir` where not set.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
}

impl Embedded {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.http_url("embedded.public_url", self.public_url.as_deref());
        complaints.at_least_one("embedded.max_connections_per_address", self.max_connections_per_address as u64);
        complaints.unless(self.max_connections_per_address <= self.max_connections, || {
            format!(
                "embedded.max_connections_per_address ({}) is more than embedded.max_connections ({})",
                self.max_connections_per_address, self.max_connections
            )
        });
        // A semaphore's limit, and far more than a machine has ports.
        complaints.unless(self.max_connections <= 1_000_000, || {
            format!("embedded.max_connections ({}) is more than 1000000", self.max_connections)
        });
        complaints.pair(
            ("embedded.access_key_id", self.access_key_id.is_some()),
            ("embedded.secret_access_key", self.secret_access_key.is_some()),
        );
    }
}
