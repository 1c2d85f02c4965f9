use serde::Deserialize;

use super::{Complaints, Secret};

/// The external database; without a URL the server keeps its own file in `embedded.data_dir`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A secret, because it holds the password.
    pub url: Option<Secret>,
    /// A third each is for reads by a key, for writes, and for searches.
    pub max_connections: u32,
    pub connect_timeout_secs: u64,
    /// How long a request waits for its turn, and then for a free connection.
    pub acquire_timeout_secs: u64,
    /// The database itself ends a statement that takes longer. If it stays silent, the connection is given up 2 s later.
    pub statement_timeout_secs: u64,
}

impl Database {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        let postgres = |url: &str| url.starts_with("postgres://") || url.starts_with("postgresql://");
        complaints.unless(self.url.as_ref().is_none_or(|url| postgres(url.expose())), || {
            "database.url (DATABASE_URL) must start with postgres://".into()
        });
        complaints.unless(self.max_connections >= 3, || {
            "database.max_connections must be at least 3: one to read, one to write and one to search".into()
        });
        complaints.at_least_one("database.connect_timeout_secs", self.connect_timeout_secs);
        complaints.at_least_one("database.acquire_timeout_secs", self.acquire_timeout_secs);
        complaints.at_least_one("database.statement_timeout_secs", self.statement_timeout_secs);
    }
}
