use serde::Deserialize;

use super::Secret;

/// Which S3 to talk to, and how patiently. What is not set comes from the provider's preset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Unset: AWS, or any store of the S3 kind where an endpoint is given.
    pub provider: Option<Provider>,
    /// The bucket that all tenants share.
    pub bucket: Option<String>,
    /// Unset: the preset's, else what the AWS environment says.
    pub region: Option<String>,
    /// Where this server reaches the store: `http(s)://host[:port][/prefix]`.
    pub endpoint: Option<String>,
    /// Where browsers reach it, if that differs. It stands in every presigned URL.
    pub public_endpoint: Option<String>,
    /// With the secret key: a fixed credential. Without both: the AWS default chain.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`.
    pub path_style: Option<bool>,
    pub provision_strategy: ProvisionStrategy,
    /// How long a connection may take.
    pub connect_timeout_secs: u64,
    /// How long the store may be silent before its answer begins.
    pub read_timeout_secs: u64,
    /// How long one attempt may take from end to end.
    pub attempt_timeout_secs: u64,
    /// How often a call that can be repeated is tried, the first time included.
    pub max_attempts: u32,
    pub max_parts: Option<u32>,
    pub min_part_bytes: Option<u64>,
    pub max_part_bytes: Option<u64>,
    pub max_object_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Aws,
    R2,
    Minio,
    Garage,
    B2,
    Ceph,
    Spaces,
    Gcs,
    /// The store in this process.
    Embedded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvisionStrategy {
    /// One bucket for all tenants.
    Shared,
    /// Each tenant's own bucket, as its row names it.
    Dedicated,
}
