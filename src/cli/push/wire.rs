//! The shapes of the native API, as far as a push reads them. Members that it does not read may change.

use std::collections::HashMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Error, Problem};
use super::report::plain;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Initiating,
    Uploading,
    Completed,
    Cancelled,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadType {
    Direct,
    Multipart,
}

/// A session, and the URL of a direct one while it is UPLOADING.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    pub upload_session_id: String,
    pub status: Status,
    pub upload_type: UploadType,
    pub chunk_size: Option<u64>,
    pub total_parts: Option<u32>,
    pub failure_reason: Option<String>,
    #[serde(flatten)]
    pub direct: DirectUrl,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct DirectUrl {
    pub upload_url: Option<String>,
    pub upload_headers: Option<HashMap<String, String>>,
    pub upload_url_expires_at: Option<DateTime<Utc>>,
    /// The same time by this machine's clock, with a margin.
    #[serde(skip)]
    pub good_until: Option<Instant>,
}

/// One file of a batch, as it is announced.
#[derive(Clone, Debug, Serialize)]
pub struct Announcement<'a> {
    pub file_name: &'a str,
    pub file_size: u64,
    pub mime_type: String,
    pub client_reference: String,
    pub fingerprint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum_sha256: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
pub struct BatchAnswer {
    pub uploads: Vec<BatchItem>,
}

#[derive(Debug, Deserialize)]
pub struct BatchItem {
    pub index: usize,
    pub upload: Option<Session>,
    pub problem: Option<Problem>,
}

/// The results of a batch of completions.
#[derive(Debug, Deserialize)]
pub struct Completed {
    pub uploads: Vec<CompletedItem>,
}

#[derive(Debug, Deserialize)]
pub struct CompletedItem {
    pub index: usize,
    pub asset: Option<Value>,
    pub problem: Option<Problem>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Resume {
    #[serde(flatten)]
    pub session: Session,
    pub can_resume: bool,
    pub reason: Option<String>,
    #[serde(default)]
    pub uploaded_parts: Vec<StoredPart>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct StoredPart {
    pub part_number: u32,
    pub etag: Option<String>,
    pub size: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PartUrl {
    pub part_number: u32,
    pub upload_url: String,
    #[serde(default)]
    pub upload_headers: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub struct PartUrlsAnswer {
    pub expires_at: DateTime<Utc>,
    pub parts: Vec<PartUrl>,
}

/// The asset as the server shows it, and what a push compares.
#[derive(Clone, Debug)]
pub struct Asset {
    pub shown: Value,
    pub facts: AssetFacts,
}

#[derive(Debug, Deserialize)]
pub struct Brands {
    pub data: Vec<Brand>,
}

#[derive(Debug, Deserialize)]
pub struct Brand {
    pub brand_id: String,
    pub slug: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct AssetFacts {
    pub asset_id: String,
    pub file_size: u64,
    pub etag: Option<String>,
    pub checksum_sha256: Option<String>,
    pub checksum_verified: bool,
}

impl Resume {
    /// # Errors
    /// [`Error::SessionOver`] or [`Error::Completed`] if the session takes no more bytes.
    pub fn still_open(self) -> Result<Self, Error> {
        if self.can_resume {
            return Ok(self);
        }
        match (self.session.status, self.reason.as_deref()) {
            (Status::Completed, _) => Err(Error::Completed),
            (_, Some("expired")) => Err(Error::SessionOver("has expired".into())),
            (_, Some("storage_upload_lost")) => Err(Error::SessionOver("was lost by the store".into())),
            (Status::Cancelled, _) => Err(Error::SessionOver("was cancelled".into())),
            (_, reason) => {
                let reason = self.session.failure_reason.as_deref().or(reason).unwrap_or("no reason given");
                Err(Error::SessionOver(format!("has failed ({})", plain(reason))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_session_is_read_with_and_without_its_url() {
        let open = r#"{"upload_session_id": "a", "status": "UPLOADING", "upload_type": "direct", "chunk_size": null,
            "total_parts": null, "failure_reason": null, "upload_url": "http://s/x", "upload_method": "PUT",
            "upload_headers": {"content-type": "text/plain"}, "upload_url_expires_at": "2026-01-02T03:04:05.000006Z"}"#;
        let open: Session = serde_json::from_str(open).unwrap();
        assert_eq!(open.direct.upload_headers.unwrap()["content-type"], "text/plain");
        let resume = r#"{"upload_session_id": "b", "status": "UPLOADING", "upload_type": "multipart", "chunk_size": 9,
            "total_parts": 2, "failure_reason": null, "can_resume": true, "reason": null,
            "uploaded_parts": [{"part_number": 1, "etag": null, "size": 9}], "uploaded_bytes": 9}"#;
        let resume: Resume = serde_json::from_str(resume).unwrap();
        assert_eq!((resume.session.total_parts, resume.uploaded_parts.len()), (Some(2), 1));
        assert_eq!(resume.session.direct.upload_url, None);
    }
}
