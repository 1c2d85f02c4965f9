//! One object: put, get, head, delete.

use std::ops::Range;

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Result, TrailingHeaders, s3_error};

use crate::checksum::{self, Checksum, Expected, Kind};
use crate::condition::{ReadConditions, WriteCondition, etag};
use crate::fault::Result;
use crate::headers::{self, timestamp};
use crate::range;
use crate::read::{self, cut};
use crate::receive::{announced, receive};
use crate::rows::object::{Object, ObjectRow};
use crate::rows::{self, now_ms};
use crate::store::{Opened, Store, bucket_id, find, look, only_version, part_sizes};

/// S3's limit on the keys of one DeleteObjects.
const DELETE_MAX_KEYS: usize = 1000;

impl Store {
    pub async fn put_object(
        &self,
        mut input: PutObjectInput,
        request: &HeaderMap,
        trailers: Option<TrailingHeaders>,
    ) -> Result<PutObjectOutput> {
        check_key(&input.key)?;
        let length = announced(input.content_length, input.body.as_ref())?;
        let condition = WriteCondition::parse(input.if_match.take(), input.if_none_match.take())?;
        let given = checksum::given!(input)?;
        let expected =
            Expected::parse(request, input.content_md5.as_deref(), given, input.checksum_algorithm.as_ref())?;
        let headers = headers::kept!(input)?;
        let (_, existing) = look(&mut *self.rows.reader().await?, &input.bucket, &input.key).await?;
        condition.check(existing.as_ref().map(|row| &row.object))?;

        let mut received = receive(&self.blobs, input.body.take(), length, expected.algorithm).await?;
        let trailers = trailers.and_then(|trailers| trailers.take());
        expected.check(received.md5, received.checksum.as_deref(), trailers.as_ref())?;
        let checksum = expected.algorithm.zip(received.checksum.take()).map(|(algorithm, value)| Checksum {
            algorithm,
            value,
            kind: Kind::FullObject,
        });
        let object = Object { size: received.size, etag: received.etag(), modified_ms: now_ms(), headers, checksum };

        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let (bucket, existing) = look(&mut tx, &input.bucket, &input.key).await?;
            condition.check(existing.as_ref().map(|row| &row.object))?;
            if let Some(old) = &existing {
                rows::object::detach(&mut tx, old.id).await?;
            }
            let id = rows::object::insert(&mut tx, bucket, &input.key, &object).await?;
            for segment in received.segments() {
                rows::object::own_blob(&mut tx, id, segment.blob, received.size).await?;
            }
            let orphans = match existing {
                Some(old) => rows::object::retire(&mut tx, old.id).await?,
                None => Vec::new(),
            };
            store.commit_with(tx, received.blob.as_mut()).await?;
            store.discard(orphans);

            let mut output = PutObjectOutput { e_tag: Some(etag(&object.etag)), ..Default::default() };
            output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.kind.dto());
            checksum::put!(&object.checksum => output);
            Ok(output)
        })
        .await
    }

    pub async fn get_object(&self, input: GetObjectInput, request: &HeaderMap) -> Result<GetObjectOutput> {
        only_version(input.version_id.as_deref())?;
        let Opened { row, segments, part_sizes, hold } =
            self.open(&input.bucket, &input.key, input.part_number).await?;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check_read(&row.object)?;
        let range = input.range.filter(|_| range::counts(request, &row.object));
        let asked = Self::stretch(&row, range, input.part_number, &part_sizes)?;
        let ObjectRow { object, .. } = row;

        let size = object.size.cast_unsigned();
        let range = asked.range.clone().unwrap_or(0..size);
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some((range.end - range.start).cast_signed()),
            content_range: asked.range.as_ref().map(|range| range::content_range(range, size)),
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(timestamp(object.modified_ms)),
            parts_count: asked.parts_count,
            ..Default::default()
        };
        if range.start < range.end {
            let body = read::Body::new(&self.blobs, hold, cut(&segments, range));
            output.body = Some(StreamingBlob::new(body));
        }
        // A client would compare the checksum of the whole object with the part that it received.
        if asked.range.is_none() && input.checksum_mode.is_some() {
            output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.kind.dto());
            checksum::put!(&object.checksum => output);
        }
        headers::say!(object.headers => output);
        Ok(output)
    }

    pub async fn head_object(&self, input: HeadObjectInput, request: &HeaderMap) -> Result<HeadObjectOutput> {
        only_version(input.version_id.as_deref())?;
        let (row, part_sizes) = match input.part_number {
            None => (find(&mut *self.rows.reader().await?, &input.bucket, &input.key).await?, Vec::new()),
            part @ Some(_) => {
                let mut tx = self.rows.read().await?;
                let row = find(&mut tx, &input.bucket, &input.key).await?;
                let part_sizes = part_sizes(&mut tx, &row, part).await?;
                (row, part_sizes)
            }
        };
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check_read(&row.object)?;
        let range = input.range.filter(|_| range::counts(request, &row.object));
        let asked = Self::stretch(&row, range, input.part_number, &part_sizes)?;
        let ObjectRow { object, .. } = row;

        let size = object.size.cast_unsigned();
        let length = asked.range.as_ref().map_or(size, |range| range.end - range.start);
        let mut output = HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(length.cast_signed()),
            content_range: asked.range.as_ref().map(|range| range::content_range(range, size)),
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(timestamp(object.modified_ms)),
            parts_count: asked.parts_count,
            ..Default::default()
        };
        if asked.range.is_none() && input.checksum_mode.is_some() {
            output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.kind.dto());
            checksum::put!(&object.checksum => output);
        }
        headers::say!(object.headers => output);
        Ok(output)
    }

    /// Returns the stretch of the object that is requested, by Range or by part number.
    fn stretch(row: &ObjectRow, range: Option<s3s::dto::Range>, part: Option<i32>, sizes: &[i64]) -> Result<Stretch> {
        let size = row.object.size.cast_unsigned();
        match (range, part) {
            (None, None) => Ok(Stretch::default()),
            (Some(range), None) => Ok(Stretch { range: Some(range::resolve(range, size)?), parts_count: None }),
            (Some(_), Some(_)) => {
                Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter").into())
            }
            (None, Some(number)) => {
                let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                let whole_of_none = sizes.is_empty() && index == Some(0);
                match index.and_then(|index| Some((index, *sizes.get(index)?))) {
                    _ if whole_of_none => Ok(Stretch::default()),
                    Some((index, length)) => {
                        let start = sizes[..index].iter().sum::<i64>().cast_unsigned();
                        let count = i32::try_from(sizes.len()).ok().filter(|_| row.object.etag.contains('-'));
                        Ok(Stretch { range: Some(start..start + length.cast_unsigned()), parts_count: count })
                    }
                    None => Err(s3_error!(InvalidRange, "The requested partnumber is not satisfiable").into()),
                }
            }
        }
    }

    pub async fn delete_object(&self, input: DeleteObjectInput) -> Result<DeleteObjectOutput> {
        only_version(input.version_id.as_deref())?;
        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let (_, existing) = look(&mut tx, &input.bucket, &input.key).await?;
            if let Some(wanted) = input.if_match {
                WriteCondition::Is(wanted).check(existing.as_ref().map(|row| &row.object))?;
            }
            if let Some(row) = existing {
                let orphans = rows::object::retire(&mut tx, row.id).await?;
                tx.commit().await?;
                store.discard(orphans);
            }
            Ok(DeleteObjectOutput::default())
        })
        .await
    }

    /// Deletes all keys in one transaction: either the answer holds for all of them, or nothing was deleted.
    pub async fn delete_objects(&self, input: DeleteObjectsInput) -> Result<DeleteObjectsOutput> {
        if input.delete.objects.is_empty() || input.delete.objects.len() > DELETE_MAX_KEYS {
            return Err(s3_error!(MalformedXML, "Between 1 and {DELETE_MAX_KEYS} keys can be deleted at once.").into());
        }
        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            bucket_id(&mut tx, &input.bucket).await?;
            let (mut deleted, mut errors, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
            for one in input.delete.objects {
                let existing = look(&mut tx, &input.bucket, &one.key).await?.1;
                let held = match one.e_tag {
                    Some(wanted) => {
                        WriteCondition::Is(ETagCondition::ETag(wanted)).check(existing.as_ref().map(|row| &row.object))
                    }
                    None => Ok(()),
                };
                let held = held.and(only_version(one.version_id.as_deref()).map_err(Into::into));
                if let Err(error) = held {
                    errors.push(Error {
                        code: Some(error.code().as_str().to_owned()),
                        key: Some(one.key),
                        message: error.message().map(str::to_owned),
                        version_id: one.version_id,
                    });
                    continue;
                }
                if let Some(row) = existing {
                    orphans.extend(rows::object::retire(&mut tx, row.id).await?);
                }
                deleted.push(DeletedObject { key: Some(one.key), ..Default::default() });
            }
            tx.commit().await?;
            store.discard(orphans);
            let quiet = input.delete.quiet == Some(true);
            Ok(DeleteObjectsOutput {
                deleted: (!quiet).then_some(deleted),
                errors: (!errors.is_empty()).then_some(errors),
                ..Default::default()
            })
        })
        .await
    }
}

/// # Errors
/// KeyTooLongError above 1,024 bytes of UTF-8.
pub fn check_key(key: &str) -> S3Result<()> {
    if key.len() > 1024 {
        return Err(s3_error!(KeyTooLongError, "Your key is too long"));
    }
    Ok(())
}

/// The part of an object that a GET or HEAD requests; the whole object by default.
#[derive(Default)]
struct Stretch {
    range: Option<Range<u64>>,
    parts_count: Option<i32>,
}
