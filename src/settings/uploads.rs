use serde::Deserialize;

use super::{Complaints, Sessions, Storage};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Limits and part sizes of one kind of upload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadProfile {
    /// Files up to this size are sent in one PUT, larger ones in parts.
    pub direct_max_bytes: u64,
    /// The size of a part, unless the file would then need more parts than the store allows.
    pub chunk_bytes: u64,
    /// Lifetime of a presigned URL.
    pub url_ttl_secs: u64,
    /// Smaller files are refused; 0 allows empty files.
    pub min_file_bytes: u64,
    /// Larger files are refused.
    pub max_file_bytes: u64,
}

impl UploadProfile {
    pub(super) fn check(&self, name: &str, sessions: &Sessions, storage: &Storage, complaints: &mut Complaints) {
        let key = |key: &str| format!("uploads.{name}.{key}");
        complaints.at_least_one(&key("max_file_bytes"), self.max_file_bytes);
        complaints.unless(self.min_file_bytes <= self.max_file_bytes, || {
            format!(
                "{} ({}) is more than {} ({})",
                key("min_file_bytes"),
                self.min_file_bytes,
                key("max_file_bytes"),
                self.max_file_bytes
            )
        });
        // One PUT and one part hold at most 5 GiB, a part at least 5 MiB (Amazon S3 multipart upload limits).
        complaints.unless(self.direct_max_bytes <= 5 * GIB, || {
            format!(
                "{} ({}) must be at most 5 GiB, the limit of S3 for one PUT",
                key("direct_max_bytes"),
                self.direct_max_bytes
            )
        });
        let (least, least_of) = storage.min_part_bytes.map_or((5 * MIB, "5 MiB"), |n| (n, "storage.min_part_bytes"));
        let (most, most_of) = storage.max_part_bytes.map_or((5 * GIB, "5 GiB"), |n| (n, "storage.max_part_bytes"));
        complaints.unless((least..=most).contains(&self.chunk_bytes), || {
            format!(
                "{} ({}) must be between {least_of} ({least}) and {most_of} ({most})",
                key("chunk_bytes"),
                self.chunk_bytes
            )
        });
        // Seven days is as long as a Signature Version 4 URL can live.
        complaints.unless((1..=604_800).contains(&self.url_ttl_secs), || {
            format!("{} ({}) must be 1 to 604800", key("url_ttl_secs"), self.url_ttl_secs)
        });
        complaints.unless(self.url_ttl_secs < sessions.expires_after_secs, || {
            format!(
                "{} ({}) must be less than sessions.expires_after_secs ({})",
                key("url_ttl_secs"),
                self.url_ttl_secs,
                sessions.expires_after_secs
            )
        });
    }
}
