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
    pub bucket: String,
    /// Made at the first start and kept in `data_dir` where not set.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
}

impl Embedded {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.http_url("embedded.public_url", self.public_url.as_deref());
        complaints.pair(
            ("embedded.access_key_id", self.access_key_id.is_some()),
            ("embedded.secret_access_key", self.secret_access_key.is_some()),
        );
    }
}
