//! Copies: of an object to an object, and of a stretch of an object to a part. No bytes are copied on the disk.

use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Result, s3_error};
use tokio::task::spawn_blocking;

use crate::checksum::{self, Algorithm, Checksum, Kind};
use crate::condition::{ReadConditions, WriteCondition, etag};
use crate::fault::Result;
use crate::headers::{self, timestamp};
use crate::object::check_key;
use crate::read::{self, cut};
use crate::rows::object::Object;
use crate::rows::upload::Part;
use crate::rows::{self, now_ms};
use crate::store::{Opened, Store, bucket_id, find, look, only_version};

impl Store {
    /// Gives the target the bytes, the ETag and the checksum of the source, in one transaction.
    /// There is no limit on the size, because no bytes are copied.
    pub async fn copy_object(&self, mut input: CopyObjectInput, request: &HeaderMap) -> Result<CopyObjectOutput> {
        check_key(&input.key)?;
        let target = WriteCondition::from_headers(request)?;
        let (source_bucket, source_key) = source(&input.copy_source)?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.take(),
            if_none_match: input.copy_source_if_none_match.take(),
            if_modified_since: input.copy_source_if_modified_since.take(),
            if_unmodified_since: input.copy_source_if_unmodified_since.take(),
        };
        let replace =
            input.metadata_directive.as_ref().is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        if !replace && source_bucket == input.bucket && source_key == input.key {
            let why =
                "This copy request is illegal because it is trying to copy an object to itself without changing it.";
            return Err(s3_error!(InvalidRequest, "{why}").into());
        }
        let asked = input.checksum_algorithm.as_ref().map(Algorithm::parse).transpose()?;
        let headers = headers::kept!(input)?;
        // A checksum that the source does not have yet is computed from its bytes.
        let (looked_at, checksum) = match asked {
            Some(algorithm) => self.checksum_of(&source_bucket, &source_key, algorithm).await?,
            None => (None, None),
        };

        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let (to_bucket, old) = look(&mut tx, &input.bucket, &input.key).await?;
            let from = find(&mut tx, &source_bucket, &source_key).await?;
            conditions.check_copy(&from.object)?;
            if looked_at.is_some_and(|id| id != from.id) {
                return Err(changed_meanwhile().into());
            }
            target.check(old.as_ref().map(|row| &row.object))?;
            if let Some(old) = &old {
                rows::object::detach(&mut tx, old.id).await?;
            }
            let object = Object {
                modified_ms: now_ms(),
                headers: if replace { headers } else { from.object.headers },
                checksum: checksum.or(from.object.checksum),
                ..from.object
            };
            let id = rows::object::insert(&mut tx, to_bucket, &input.key, &object).await?;
            rows::object::share_segments(&mut tx, from.id, id).await?;
            let orphans = match old {
                Some(old) => rows::object::retire(&mut tx, old.id).await?,
                None => Vec::new(),
            };
            tx.commit().await?;
            store.discard(orphans);

            let mut result = CopyObjectResult {
                e_tag: Some(etag(&object.etag)),
                last_modified: Some(timestamp(object.modified_ms)),
                checksum_type: object.checksum.as_ref().map(|checksum| checksum.kind.dto()),
                ..Default::default()
            };
            checksum::put!(&object.checksum => result);
            Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
        })
        .await
    }

    /// Returns the id of the version that was read, and its checksum by `algorithm`; nothing if it already has that one.
    async fn checksum_of(
        &self,
        bucket: &str,
        key: &str,
        algorithm: Algorithm,
    ) -> Result<(Option<i64>, Option<Checksum>)> {
        let Opened { row, segments, hold, .. } = self.open(bucket, key, None).await?;
        if row.object.checksum.is_some_and(|checksum| checksum.algorithm == algorithm) {
            return Ok((None, None));
        }
        let blobs = Arc::clone(&self.blobs);
        let (_, value) = spawn_blocking(move || read::digest(&blobs, hold, segments, Some(algorithm))).await??;
        Ok((Some(row.id), value.map(|value| Checksum { algorithm, value, kind: Kind::FullObject })))
    }

    /// Gives a part the bytes of a stretch of an object. The bytes are read for their digests, unless the upload has no
    /// checksum and the stretch is a whole object whose ETag is its MD5. No bytes are written.
    pub async fn upload_part_copy(&self, input: UploadPartCopyInput) -> Result<UploadPartCopyOutput> {
        let number = crate::multipart::part_number(input.part_number)?;
        let (source_bucket, source_key) = source(&input.copy_source)?;
        let plan = self.open_upload(&input.upload_id, &input.bucket, &input.key).await?.plan;
        let Opened { row: from, segments, hold, .. } = self.open(&source_bucket, &source_key, None).await?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        conditions.check_copy(&from.object)?;
        let size = from.object.size.cast_unsigned();
        let range = match &input.copy_source_range {
            Some(range) => stretch(range, size)?,
            None => 0..size,
        };
        let segments = cut(&segments, range.clone());
        let algorithm = plan.map(|plan| plan.algorithm);

        let known = range == (0..size) && algorithm.is_none() && !from.object.etag.contains('-');
        let (etag, checksum) = if known {
            (from.object.etag, None)
        } else {
            let (blobs, segments) = (Arc::clone(&self.blobs), segments.clone());
            let (md5, value) = spawn_blocking(move || read::digest(&blobs, hold, segments, algorithm)).await??;
            (hex::encode(md5), value)
        };
        let checksum =
            algorithm.zip(checksum).map(|(algorithm, value)| Checksum { algorithm, value, kind: Kind::FullObject });
        let part =
            Part { number, size: (range.end - range.start).cast_signed(), etag, modified_ms: now_ms(), checksum };

        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let bucket = bucket_id(&mut tx, &input.bucket).await?;
            let upload = crate::multipart::find_open(&mut tx, &input.upload_id, bucket, &input.key).await?;
            // Only a version that still has its row keeps its blobs.
            if !rows::object::is_current(&mut tx, from.id).await? {
                return Err(changed_meanwhile().into());
            }
            let orphans = rows::upload::put_part(&mut tx, upload.pk, &part, &segments).await?;
            tx.commit().await?;
            store.discard(orphans);

            let mut result = CopyPartResult {
                e_tag: Some(ETag::Strong(part.etag)),
                last_modified: Some(timestamp(part.modified_ms)),
                ..Default::default()
            };
            checksum::put!(&part.checksum => result);
            Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
        })
        .await
    }
}

fn changed_meanwhile() -> s3s::S3Error {
    s3_error!(OperationAborted, "The source was replaced or deleted while it was copied. Please try again.")
}

fn source(source: &CopySource) -> Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            only_version(version_id.as_deref())?;
            Ok((bucket.to_string(), key.to_string()))
        }
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(s3_error!(NotImplemented, "The source of a copy must be a bucket and a key.").into())
        }
    }
}

/// Parses `bytes=first-last`. For a copy S3 requires both positions, and both must be inside the source.
fn stretch(header: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    let wrong = || s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last");
    match Range::parse(header).map_err(|_| wrong())? {
        Range::Int { first, last: Some(last) } if last < size => Ok(first..last + 1),
        Range::Int { last: Some(_), .. } => {
            Err(s3_error!(InvalidRange, "Range specified is not valid for source object of size: {size}"))
        }
        Range::Int { last: None, .. } | Range::Suffix { .. } => Err(wrong()),
    }
}
