//! The headers that a client stores with an object: standard headers and its own metadata.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::{Metadata, Timestamp};
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// S3's limit on a client's own metadata, names and values together, in bytes.
const METADATA_MAX_BYTES: usize = 2 * 1024;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Headers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Takes the headers to store from the input of PutObject, CreateMultipartUpload or CopyObject.
macro_rules! kept {
    ($from:expr) => {{
        let headers = $crate::headers::Headers {
            content_type: $from.content_type.take(),
            content_disposition: $from.content_disposition.take(),
            content_encoding: $from.content_encoding.take(),
            content_language: $from.content_language.take(),
            cache_control: $from.cache_control.take(),
            expires: $from.expires.take().map($crate::headers::seconds),
            metadata: $from.metadata.take().unwrap_or_default().into_iter().collect(),
        };
        headers.checked()
    }};
}

/// Puts stored headers into the answer to GetObject or HeadObject.
macro_rules! say {
    ($headers:expr => $into:expr) => {{
        let headers = $headers;
        $into.content_type = headers.content_type.or_else(|| Some("binary/octet-stream".into()));
        $into.content_disposition = headers.content_disposition;
        $into.content_encoding = headers.content_encoding;
        $into.content_language = headers.content_language;
        $into.cache_control = headers.cache_control;
        $into.expires = headers.expires.map(|seconds| $crate::headers::timestamp(seconds.saturating_mul(1000)));
        $into.metadata = $crate::headers::metadata(headers.metadata);
    }};
}

pub(crate) use {kept, say};

impl Headers {
    /// # Errors
    /// MetadataTooLarge.
    pub fn checked(mut self) -> S3Result<Self> {
        let bytes: usize = self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > METADATA_MAX_BYTES {
            return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size."));
        }
        // `aws-chunked` describes how the body was sent, not its content.
        self.content_encoding = self.content_encoding.and_then(|encoding| {
            let kept: Vec<_> =
                encoding.split(',').map(str::trim).filter(|one| !one.eq_ignore_ascii_case("aws-chunked")).collect();
            (!kept.is_empty()).then(|| kept.join(","))
        });
        Ok(self)
    }
}

pub fn metadata(kept: BTreeMap<String, String>) -> Option<Metadata> {
    (!kept.is_empty()).then(|| kept.into_iter().collect())
}

/// Converts milliseconds since 1970.
pub fn timestamp(ms: i64) -> Timestamp {
    let distance = Duration::from_millis(ms.unsigned_abs());
    let time = if ms < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(SystemTime::UNIX_EPOCH).into()
}

/// Whole seconds since 1970, the precision of HTTP dates.
pub fn seconds(time: Timestamp) -> i64 {
    OffsetDateTime::from(time).unix_timestamp()
}
