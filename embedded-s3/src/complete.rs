//! CompleteMultipartUpload: one transaction turns the parts into an object. No bytes are copied.

use std::collections::HashMap;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::*;
use s3s::{S3Result, s3_error};

use crate::checksum::{self, Algorithm, Checksum, Plan};
use crate::condition::{WriteCondition, etag};
use crate::fault::Result;
use crate::multipart::no_such_upload;
use crate::rows::object::Object;
use crate::rows::upload::Part as PartRow;
use crate::rows::{self, now_ms};
use crate::store::{Store, bucket_id, look};

/// S3's minimum size of every part but the last.
const PART_MIN_BYTES: i64 = 5 * 1024 * 1024;

const PARTS_MAX: i64 = 10_000;

/// A part in the client's list.
struct Named {
    number: i32,
    etag: ETag,
    checksum: Option<(Algorithm, String)>,
}

impl Store {
    /// A refused request leaves the upload unchanged.
    pub async fn complete_multipart_upload(
        &self,
        mut input: CompleteMultipartUploadInput,
    ) -> Result<CompleteMultipartUploadOutput> {
        let condition = WriteCondition::parse(input.if_match.take(), input.if_none_match.take())?;
        let given = checksum::given!(input)?;
        let named = named(input.multipart_upload.take())?;

        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let bucket = bucket_id(&mut tx, &input.bucket).await?;
            let upload = rows::upload::find(&mut tx, &input.upload_id, bucket, &input.key).await?;
            let upload = upload.ok_or_else(no_such_upload)?;
            if let Some(etag) = upload.completed {
                // The answer to the first call may have been lost. A call that names other parts is not a repetition.
                let md5s = named.iter().map(|part| part.etag.value());
                return match assembled_etag(md5s) {
                    Some(repeated) if repeated == etag => Ok(output(input.bucket, input.key, &etag)),
                    _ => Err(no_such_upload().into()),
                };
            }

            let stored = rows::upload::parts(&mut tx, upload.pk, 0, PARTS_MAX).await?;
            let parts = chosen(&named, &stored)?;
            let size = parts.iter().map(|part| part.size).sum();
            if input.mpu_object_size.is_some_and(|announced| announced != size) {
                let why = "The provided 'x-amz-mp-object-size' header does not match what was computed.";
                return Err(s3_error!(InvalidRequest, "{why}").into());
            }
            let checksum = assembled_checksum(upload.plan, given, &parts)?;
            let etag = assembled_etag(parts.iter().map(|part| part.etag.as_str()))
                .ok_or_else(|| s3_error!(InternalError, "A part has an ETag that is not an MD5."))?;
            let existing = look(&mut tx, &input.bucket, &input.key).await?.1;
            condition.check(existing.as_ref().map(|row| &row.object))?;

            let mut orphans = Vec::new();
            let numbers: Vec<_> = parts.iter().map(|part| part.number).collect();
            for part in stored.iter().filter(|part| numbers.binary_search(&part.number).is_err()) {
                orphans.extend(rows::upload::drop_part(&mut tx, upload.pk, part.number).await?);
            }
            if let Some(old) = &existing {
                rows::object::detach(&mut tx, old.id).await?;
            }
            let now = now_ms();
            let object = Object { size, etag, modified_ms: now, headers: upload.headers, checksum };
            let id = rows::object::insert(&mut tx, bucket, &input.key, &object).await?;
            rows::object::take_parts(&mut tx, upload.pk, id).await?;
            rows::upload::complete(&mut tx, upload.pk, now, &object.etag).await?;
            if let Some(old) = existing {
                orphans.extend(rows::object::retire(&mut tx, old.id).await?);
            }
            tx.commit().await?;
            store.discard(orphans);

            let mut output = output(input.bucket, input.key, &object.etag);
            output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.kind.dto());
            checksum::put!(&object.checksum => output);
            Ok(output)
        })
        .await
    }
}

fn output(bucket: String, key: String, value: &str) -> CompleteMultipartUploadOutput {
    CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{key}")),
        bucket: Some(bucket),
        key: Some(key),
        e_tag: Some(etag(value)),
        ..Default::default()
    }
}

/// Returns the parts of the request, in ascending order of their numbers.
///
/// # Errors
/// MalformedXML for an empty list or a part without number or ETag; InvalidPartOrder; InvalidRequest for a part with more
/// than one checksum.
fn named(upload: Option<CompletedMultipartUpload>) -> S3Result<Vec<Named>> {
    let malformed = || {
        s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        )
    };
    let parts = upload.and_then(|upload| upload.parts).filter(|parts| !parts.is_empty()).ok_or_else(malformed)?;
    let mut named: Vec<Named> = Vec::with_capacity(parts.len());
    for mut part in parts {
        let number = part.part_number.ok_or_else(malformed)?;
        if named.last().is_some_and(|last| last.number >= number) {
            return Err(s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number."
            ));
        }
        let checksum = checksum::given!(part)?;
        named.push(Named { number, etag: part.e_tag.ok_or_else(malformed)?, checksum });
    }
    Ok(named)
}

/// Returns the stored parts that the client names.
///
/// # Errors
/// InvalidPart if a part does not exist, or has another ETag or checksum; EntityTooSmall.
fn chosen(named: &[Named], stored: &[PartRow]) -> S3Result<Vec<PartRow>> {
    let by_number: HashMap<_, _> = stored.iter().map(|part| (part.number, part)).collect();
    let mut parts = Vec::with_capacity(named.len());
    for wanted in named {
        let agrees = |part: &&&PartRow| {
            wanted.etag.value() == part.etag
                && wanted.checksum.as_ref().is_none_or(|(algorithm, value)| {
                    part.checksum
                        .as_ref()
                        .is_some_and(|stored| stored.algorithm == *algorithm && stored.value == *value)
                })
        };
        let part = by_number.get(&wanted.number).filter(agrees).ok_or_else(|| {
            s3_error!(
                InvalidPart,
                "One or more of the specified parts could not be found. The part might not have been uploaded, or the specified entity tag might not have matched the part's entity tag."
            )
        })?;
        parts.push((*part).clone());
    }
    let but_the_last = parts.len().saturating_sub(1);
    if parts[..but_the_last].iter().any(|part| part.size < PART_MIN_BYTES) {
        return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
    }
    Ok(parts)
}

/// # Errors
/// BadDigest if the client announced another checksum; InvalidRequest if the upload has no checksum by that algorithm.
fn assembled_checksum(
    plan: Option<Plan>,
    given: Option<(Algorithm, String)>,
    parts: &[PartRow],
) -> S3Result<Option<Checksum>> {
    let checksum = plan.and_then(|plan| plan.assemble(parts.iter().map(|part| (part.checksum.as_ref(), part.size))));
    if let Some((algorithm, value)) = given {
        match &checksum {
            Some(checksum) if checksum.algorithm == algorithm => {
                // A composite value may come without its "-N".
                let bare = checksum.value.split('-').next();
                if value != checksum.value && Some(value.as_str()) != bare {
                    return Err(s3_error!(BadDigest, "The checksum you specified did not match the calculated one."));
                }
            }
            _ => {
                return Err(s3_error!(InvalidRequest, "The upload was not created with this checksum algorithm."));
            }
        }
    }
    Ok(checksum)
}

/// Returns the MD5 of the parts' MD5s, with the number of parts. `None` if one is not an MD5.
fn assembled_etag<'a>(parts: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut md5 = Md5::new();
    let mut count = 0;
    for part in parts {
        let mut bytes = [0; 16];
        hex::decode_to_slice(part, &mut bytes).ok()?;
        md5.update(&bytes);
        count += 1;
    }
    Some(format!("{}-{count}", hex::encode(md5.finalize())))
}
