//! Multipart uploads: create, upload parts, list parts, abort. Completion is in `complete.rs`.

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Result, TrailingHeaders, s3_error};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::checksum::{self, Checksum, Expected, Kind, Plan};
use crate::condition::etag;
use crate::fault::Result;
use crate::headers::{self, timestamp};
use crate::list::page_size;
use crate::object::check_key;
use crate::receive::{announced, receive};
use crate::rows::upload::{Part as PartRow, Upload};
use crate::rows::{self, now_ms};
use crate::store::{Store, bucket_id};

/// How long the id of a completed upload is remembered, in milliseconds.
const COMPLETED_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

impl Store {
    pub async fn create_multipart_upload(
        &self,
        mut input: CreateMultipartUploadInput,
    ) -> Result<CreateMultipartUploadOutput> {
        check_key(&input.key)?;
        let plan = Plan::parse(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
        let headers = headers::kept!(input)?;
        // Version 7 begins with the time: the ids of one key's uploads sort in the order of their creation.
        let id = Uuid::now_v7().simple().to_string();

        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let bucket = bucket_id(&mut tx, &input.bucket).await?;
            let now = now_ms();
            rows::upload::forget_completed(&mut tx, now - COMPLETED_KEPT_MS).await?;
            rows::upload::insert(&mut tx, &id, bucket, &input.key, now, &headers, plan.as_ref()).await?;
            tx.commit().await?;
            Ok(CreateMultipartUploadOutput {
                bucket: Some(input.bucket),
                key: Some(input.key),
                upload_id: Some(id),
                checksum_algorithm: plan.map(|plan| plan.algorithm.dto()),
                checksum_type: plan.map(|plan| plan.kind.dto()),
                ..Default::default()
            })
        })
        .await
    }

    pub async fn upload_part(
        &self,
        mut input: UploadPartInput,
        request: &HeaderMap,
        trailers: Option<TrailingHeaders>,
    ) -> Result<UploadPartOutput> {
        let number = part_number(input.part_number)?;
        let length = announced(input.content_length, input.body.as_ref())?;
        let given = checksum::given!(input)?;
        let plan = self.open_upload(&input.upload_id, &input.bucket, &input.key).await?.plan;
        let planned = plan.map(|plan| plan.algorithm);
        let asked = planned.map(|algorithm| algorithm.dto()).or(input.checksum_algorithm);
        let expected = Expected::parse(request, input.content_md5.as_deref(), given, asked.as_ref())?;
        if planned.is_some() && expected.algorithm != planned {
            return Err(s3_error!(InvalidRequest, "The upload was created with another checksum algorithm.").into());
        }

        let mut received = receive(&self.blobs, input.body.take(), length, expected.algorithm).await?;
        let trailers = trailers.and_then(|trailers| trailers.take());
        expected.check(received.md5, received.checksum.as_deref(), trailers.as_ref())?;
        let part = PartRow {
            number,
            size: received.size,
            etag: received.etag(),
            modified_ms: now_ms(),
            checksum: expected.algorithm.zip(received.checksum.take()).map(|(algorithm, value)| Checksum {
                algorithm,
                value,
                kind: Kind::FullObject,
            }),
        };

        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let bucket = bucket_id(&mut tx, &input.bucket).await?;
            let upload = find_open(&mut tx, &input.upload_id, bucket, &input.key).await?;
            let orphans = rows::upload::put_part(&mut tx, upload.pk, &part, &received.segments()).await?;
            store.commit_with(tx, received.blob.as_mut()).await?;
            store.discard(orphans);

            let mut output = UploadPartOutput { e_tag: Some(etag(&part.etag)), ..Default::default() };
            checksum::put!(&part.checksum => output);
            Ok(output)
        })
        .await
    }

    pub async fn list_parts(&self, input: ListPartsInput) -> Result<ListPartsOutput> {
        let limit = page_size(input.max_parts)?;
        let marker = input.part_number_marker.unwrap_or_default();
        let mut tx = self.rows.read().await?;
        let bucket = bucket_id(&mut tx, &input.bucket).await?;
        let upload = find_open(&mut tx, &input.upload_id, bucket, &input.key).await?;
        let mut parts = rows::upload::parts(&mut tx, upload.pk, marker, i64::from(limit) + 1).await?;
        drop(tx);

        let truncated = parts.len() > limit as usize;
        parts.truncate(limit as usize);
        let last = parts.last().map(|part| part.number);
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: upload.plan.map(|plan| plan.algorithm.dto()),
            checksum_type: upload.plan.map(|plan| plan.kind.dto()),
            is_truncated: Some(truncated),
            max_parts: Some(limit),
            part_number_marker: Some(marker),
            next_part_number_marker: last.filter(|_| truncated),
            parts: Some(parts.into_iter().map(part_dto).collect()),
            ..Default::default()
        })
    }

    pub async fn abort_multipart_upload(&self, input: AbortMultipartUploadInput) -> Result<AbortMultipartUploadOutput> {
        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let bucket = bucket_id(&mut tx, &input.bucket).await?;
            let upload = find_open(&mut tx, &input.upload_id, bucket, &input.key).await?;
            let orphans = rows::upload::abort(&mut tx, upload.pk).await?;
            tx.commit().await?;
            store.discard(orphans);
            Ok(AbortMultipartUploadOutput::default())
        })
        .await
    }

    /// Returns an open upload, before a body is read; the transaction that commits checks again.
    pub async fn open_upload(&self, id: &str, bucket: &str, key: &str) -> Result<Upload> {
        let mut tx = self.rows.read().await?;
        let bucket = bucket_id(&mut tx, bucket).await?;
        find_open(&mut tx, id, bucket, key).await
    }
}

/// # Errors
/// NoSuchUpload for an id that is unknown, completed, aborted, or of another bucket or key.
pub async fn find_open(conn: &mut SqliteConnection, id: &str, bucket: i64, key: &str) -> Result<Upload> {
    match rows::upload::find(conn, id, bucket, key).await? {
        Some(upload) if upload.completed.is_none() => Ok(upload),
        _ => Err(no_such_upload().into()),
    }
}

pub fn no_such_upload() -> s3s::S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )
}

/// # Errors
/// InvalidArgument outside 1 to 10,000.
pub fn part_number(number: i32) -> S3Result<i32> {
    if (1..=10_000).contains(&number) {
        Ok(number)
    } else {
        Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
    }
}

fn part_dto(row: PartRow) -> Part {
    let mut part = Part {
        part_number: Some(row.number),
        size: Some(row.size),
        e_tag: Some(etag(&row.etag)),
        last_modified: Some(timestamp(row.modified_ms)),
        ..Default::default()
    };
    checksum::put!(&row.checksum => part);
    part
}
