use std::fmt::Display;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::{Complaints, Secret};

/// The external object store; without a bucket the server runs its own (`embedded`).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// The provider of the store. It selects presets for what stores do differently.
    pub provider: Option<Provider>,
    pub bucket: Option<String>,
    pub region: Option<String>,
    /// The URL at which the server reaches the store.
    pub endpoint: Option<String>,
    /// The URL at which browsers reach the store, if it is different; presigned URLs use it.
    pub public_endpoint: Option<String>,
    /// If not set, the SDK's own credential chain is used.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    /// Whether URLs have the bucket in the path instead of the host name.
    #[serde(default, deserialize_with = "number_or_text")]
    pub path_style: Option<bool>,
    pub provision_strategy: ProvisionStrategy,
    pub connect_timeout_secs: u64,
    /// Limit from the end of a request to the first byte of its answer.
    pub read_timeout_secs: u64,
    /// Limit for one attempt as a whole.
    pub attempt_timeout_secs: u64,
    /// Includes the first attempt.
    pub max_attempts: u32,
    /// These five override the provider's preset.
    #[serde(default, deserialize_with = "number_or_text")]
    pub max_parts: Option<u32>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub min_part_bytes: Option<u64>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub max_part_bytes: Option<u64>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub max_object_bytes: Option<u64>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub max_copy_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    #[serde(alias = "s3")]
    Aws,
    /// Cloudflare.
    R2,
    Minio,
    Garage,
    /// Backblaze.
    B2,
    Ceph,
    /// DigitalOcean.
    Spaces,
    /// Google Cloud Storage through its S3 interface.
    Gcs,
    /// The store in this process; used if nothing else is set.
    #[serde(skip)]
    Embedded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvisionStrategy {
    /// One bucket for all tenants.
    Shared,
    /// Each tenant's own bucket, as its row says.
    Dedicated,
}

impl Storage {
    /// Returns the longest time that one call to the store can take, with all its attempts.
    pub fn longest_call_secs(&self) -> u64 {
        self.attempt_timeout_secs.saturating_mul(self.max_attempts.into())
    }

    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.http_url("storage.endpoint", self.endpoint.as_deref());
        complaints.http_url("storage.public_endpoint", self.public_endpoint.as_deref());
        complaints.at_least_one("storage.connect_timeout_secs", self.connect_timeout_secs);
        complaints.at_least_one("storage.read_timeout_secs", self.read_timeout_secs);
        complaints.at_least_one("storage.max_attempts", self.max_attempts.into());
        complaints.unless(self.connect_timeout_secs <= self.attempt_timeout_secs, || {
            format!(
                "storage.connect_timeout_secs ({}) is more than storage.attempt_timeout_secs ({})",
                self.connect_timeout_secs, self.attempt_timeout_secs
            )
        });
        complaints.unless(self.max_parts.is_none_or(|parts| (1..=10_000).contains(&parts)), || {
            "storage.max_parts must be 1 to 10000, as S3 numbers parts".into()
        });
        if let (Some(min), Some(max)) = (self.min_part_bytes, self.max_part_bytes) {
            complaints.unless(min <= max, || {
                format!("storage.min_part_bytes ({min}) is more than storage.max_part_bytes ({max})")
            });
        }
        // Keys without a bucket are ignored: a developer's environment may hold them for other programs.
        if self.bucket.is_some() {
            complaints.pair(
                ("storage.access_key_id", self.access_key_id.is_some()),
                ("storage.secret_access_key", self.secret_access_key.is_some()),
            );
            complaints.unless(self.session_token.is_none() || self.access_key_id.is_some(), || {
                "storage.session_token is set without storage.access_key_id".into()
            });
        } else {
            complaints.unless(self.provider.is_none(), || {
                "storage.provider (STORAGE_PROVIDER) is set without storage.bucket (AWS_BUCKET, R2_BUCKET or \
                 MINIO_BUCKET); the embedded store needs neither"
                    .into()
            });
        }
    }
}

/// The environment has only text, and a default that is not set does not tell the type of the text.
fn number_or_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display> + DeserializeOwned,
{
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => text.trim().parse().map(Some).map_err(D::Error::custom),
        value => value.try_into().map(Some).map_err(D::Error::custom),
    }
}
