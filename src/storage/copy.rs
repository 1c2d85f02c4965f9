//! Copies that the store makes by itself: no bytes pass through this server.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::types::MetadataDirective;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use percent_encoding::utf8_percent_encode;

use super::client::{Part, Storage, unquoted};
use super::error::{Error, ErrorKind, Op};
use super::key::Location;
use super::presign::PATH;

/// Larger parts gain nothing, and a part that fails is copied again as a whole.
const PART_BYTES: u64 = 1 << 30;
/// Parts that are copied at the same time.
const PARTS_AT_ONCE: usize = 4;
/// The timeout of a copy grows by one second for this many bytes, on top of the timeout of any call.
const BYTES_PER_SEC: u64 = 8 << 20;

/// The object to copy, as the store must have it at that time.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub at: &'a Location,
    /// Without quotes.
    pub etag: &'a str,
    /// In bytes.
    pub size: u64,
}

impl Storage {
    /// Copies the object to another key, only if it has this ETag. The copy has this content type and none of the source's
    /// other headers, in either way of copying. Returns the copy's own ETag, without quotes, if the store reports it; never
    /// for a copy by parts.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] if the source has another ETag, [`ErrorKind::NotFound`] if it is gone. After any other error the copy
    /// may exist: look for it. A failed copy by parts is aborted, best effort.
    pub async fn copy(&self, from: Source<'_>, to: &Location, content_type: &str) -> Result<Option<String>, Error> {
        if from.size > self.0.limits.max_copy_bytes {
            return self.copy_by_parts(from, to, content_type).await.map(|()| None);
        }
        let timeouts = self.timeouts_for(from.size);
        let request = || {
            let request = self.0.client.copy_object().bucket(&to.bucket).key(&to.key).copy_source(path_of(from.at));
            let request = request.copy_source_if_match(quoted(from.etag));
            let request = request.metadata_directive(MetadataDirective::Replace).content_type(content_type);
            request.customize().config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts.clone()))
        };
        let answer = self.call(Op::Copy, || request().send()).await?;
        Ok(answer.copy_object_result.and_then(|result| result.e_tag).map(|etag| unquoted(&etag)))
    }

    /// Returns whether a copy of this object is likely to have the object's ETag: the ETag is an MD5, and the last copy of
    /// such an object had its source's.
    pub fn copy_keeps_etag(&self, etag: &str) -> bool {
        is_md5(etag) && self.0.copies_keep_etags.load(Relaxed)
    }

    /// Records the ETag with which the store has answered to a copy of this object.
    pub fn note_copy(&self, etag: &str, answered: Option<&str>) {
        if is_md5(etag) {
            self.0.copies_keep_etags.store(answered == Some(etag), Relaxed);
        }
    }

    async fn copy_by_parts(&self, from: Source<'_>, to: &Location, content_type: &str) -> Result<(), Error> {
        let upload_id = self.open_multipart(to, content_type).await?;
        let copied = match self.copy_parts(from, to, &upload_id).await {
            Ok(parts) => self.complete_multipart(to, &upload_id, &parts).await,
            Err(error) => Err(error),
        };
        match copied {
            // An attempt whose answer was lost completed the upload, or somebody aborted it: the object shows which.
            Err(error) if error.kind == ErrorKind::NotFound && error.op == Op::CompleteMultipart => Ok(()),
            Err(error) => {
                if let Err(left) = self.abort_multipart(to, &upload_id).await {
                    tracing::warn!(%left, "could not abort a copy that failed");
                }
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn copy_parts(&self, from: Source<'_>, to: &Location, upload_id: &str) -> Result<Vec<Part>, Error> {
        let limits = &self.0.limits;
        let chunk = PART_BYTES.min(limits.max_copy_bytes).max(from.size.div_ceil(limits.max_parts.into()));
        let parts = (1_u32..).zip((0..from.size).step_by(usize::try_from(chunk).unwrap_or(usize::MAX)));
        stream::iter(parts)
            .map(|(number, first)| {
                let last = (first + chunk).min(from.size) - 1;
                self.copy_part(from, to, upload_id, number, (first, last))
            })
            .buffered(PARTS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Copies one part. `range`: the first and the last byte.
    async fn copy_part(
        &self,
        from: Source<'_>,
        to: &Location,
        upload_id: &str,
        number: u32,
        range: (u64, u64),
    ) -> Result<Part, Error> {
        let op = Op::Copy;
        let size = range.1 - range.0 + 1;
        let timeouts = self.timeouts_for(size);
        let request = || {
            let request = self.0.client.upload_part_copy().bucket(&to.bucket).key(&to.key).upload_id(upload_id);
            let request = request.part_number(i32::try_from(number).unwrap_or(i32::MAX));
            let request = request.copy_source(path_of(from.at)).copy_source_if_match(quoted(from.etag));
            let request = request.copy_source_range(format!("bytes={}-{}", range.0, range.1));
            request.customize().config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts.clone()))
        };
        let answer = self.call(op, || request().send()).await.map_err(|error| match error.code.as_str() {
            // To callers, `NotFound` means that the source is gone.
            "NoSuchUpload" => Error::nonsense(op, "the copy was aborted"),
            _ => error,
        })?;
        let etag = answer.copy_part_result.and_then(|result| result.e_tag);
        let etag = etag.ok_or_else(|| Error::nonsense(op, "a part without an ETag"))?;
        Ok(Part { number, etag: unquoted(&etag), size })
    }

    /// Returns the timeouts of a call that the store may answer only when all is done: copying this many bytes, or
    /// assembling an object.
    pub(super) fn timeouts_for(&self, bytes: u64) -> TimeoutConfig {
        let more = Duration::from_secs(bytes / BYTES_PER_SEC);
        let attempt = self.0.timeouts.operation_attempt_timeout().map(|time| time + more);
        let mut timeouts = self.0.timeouts.to_builder();
        timeouts.set_read_timeout(attempt).set_operation_attempt_timeout(attempt);
        timeouts.build()
    }
}

/// Returns whether the ETag is an MD5, and not a checksum of the MD5s of parts.
fn is_md5(etag: &str) -> bool {
    !etag.contains('-')
}

fn path_of(at: &Location) -> String {
    format!("{}/{}", at.bucket, utf8_percent_encode(&at.key, PATH))
}

fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}
