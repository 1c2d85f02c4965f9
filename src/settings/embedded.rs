use std::path::PathBuf;

use serde::Deserialize;

use super::{Complaints, Secret};

/// Characters, as `data_dir` asks them of the same two in files.
const ACCESS_KEY_ID_MIN: usize = 16;
const SECRET_ACCESS_KEY_MIN: usize = 32;

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
    /// Made at the first start and kept in `data_dir` where not set. At least 16 characters, and 32 of the secret: whoever
    /// guesses both signs for the whole store.
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
