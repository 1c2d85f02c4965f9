use std::path::PathBuf;

use serde::Deserialize;

use super::{Complaints, Secret};

/// In characters. `data_dir` requires the same of both values in files.
const ACCESS_KEY_ID_MIN: usize = 16;
const SECRET_ACCESS_KEY_MIN: usize = 32;

/// What the server keeps itself if no external database or store is set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// Database, objects and secrets.
    pub data_dir: PathBuf,
    /// Where the store listens.
    pub host: String,
    /// 0 selects a free port.
    pub port: u16,
    /// The URL at which browsers reach the store, if it is different; presigned URLs use it.
    pub public_url: Option<String>,
    /// Maximum number of connections to the store at a time. The server's own calls do not count.
    pub max_connections: usize,
    /// Of these, the maximum for one IPv4 address or one IPv6 network of 64 bits.
    pub max_connections_per_address: usize,
    /// Minimum rate of a body that a client sends or receives; 0 allows any.
    pub min_bytes_per_second: u32,
    pub bucket: String,
    /// If not set, created at the first start and kept in `data_dir`. At least 16 characters, the secret at least 32: anyone
    /// who guesses both can sign requests for the whole store.
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
        // Within the limit of a semaphore, and far more than a machine has ports.
        complaints.unless(self.max_connections <= 1_000_000, || {
            format!("embedded.max_connections ({}) is more than 1000000", self.max_connections)
        });
        complaints.pair(
            ("embedded.access_key_id", self.access_key_id.is_some()),
            ("embedded.secret_access_key", self.secret_access_key.is_some()),
        );
        let secret = self.secret_access_key.as_ref().map(Secret::expose);
        for (name, value, least) in [
            ("embedded.access_key_id", self.access_key_id.as_deref(), ACCESS_KEY_ID_MIN),
            ("embedded.secret_access_key", secret, SECRET_ACCESS_KEY_MIN),
        ] {
            complaints.unless(value.is_none_or(|value| value.chars().count() >= least), || {
                format!("{name} has fewer than {least} characters; `openssl rand -hex {}` makes a good one", least / 2)
            });
        }
    }
}
