//! Listings: objects, and open multipart uploads, page by page in the order of the keys' bytes.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Error, S3Result, s3_error};

use crate::condition::etag;
use crate::fault::Result;
use crate::headers::timestamp;
use crate::rows;
use crate::store::{Store, bucket_id};

/// S3's largest page.
const PAGE_MAX: i32 = 1000;

/// What `encoding-type=url` leaves alone.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// # Errors
/// InvalidArgument for a negative size.
pub fn page_size(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        None => Ok(PAGE_MAX),
        Some(size) if size >= 0 => Ok(size.min(PAGE_MAX)),
        Some(_) => Err(s3_error!(InvalidArgument, "The size of a page is not negative.")),
    }
}

/// Which keys a listing is about, and which of them it rolls up.
struct Scope {
    prefix: String,
    delimiter: String,
}

impl Scope {
    fn new(prefix: Option<String>, delimiter: Option<String>) -> Self {
        Self { prefix: prefix.unwrap_or_default(), delimiter: delimiter.unwrap_or_default() }
    }

    /// The common prefix that stands for `key`, if it is rolled up.
    fn roll_up<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.delimiter.is_empty() {
            return None;
        }
        let at = key[self.prefix.len()..].find(&self.delimiter)?;
        Some(&key[..self.prefix.len() + at + self.delimiter.len()])
    }

    /// The first key behind all that start with the prefix.
    fn end(&self) -> Option<Vec<u8>> {
        behind(self.prefix.as_bytes())
    }
}

/// The first key behind all that start with `prefix`; `None` where every key starts with it.
/// UTF-8 has no byte 0xff, so the last one can always be counted up.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// The first key after `key` itself.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// How the keys of an answer are written.
struct Writing {
    url: bool,
}

impl Writing {
    fn parse(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    fn key(&self, key: impl Into<String>) -> String {
        let key = key.into();
        if self.url { utf8_percent_encode(&key, PLAIN).to_string() } else { key }
    }
}

/// One entry of a page.
enum Entry<T> {
    Line(String, T),
    Prefix(String),
}

/// The key of a row. We only ever store text.
fn text(key: Vec<u8>) -> std::result::Result<String, sqlx::Error> {
    String::from_utf8(key).map_err(|error| sqlx::Error::Decode(error.into()))
}

impl Store {
    pub async fn list_objects_v2(&self, input: ListObjectsV2Input) -> Result<ListObjectsV2Output> {
        let limit = page_size(input.max_keys)?;
        let writing = Writing::parse(input.encoding_type.as_ref())?;
        let scope = Scope::new(input.prefix.clone(), input.delimiter.clone());
        let start = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => read_token(token)?,
            (None, Some(key)) => after(key.as_bytes()),
            (None, None) => Vec::new(),
        };
        let (entries, next) = self.objects(&input.bucket, &scope, start, limit as usize).await?;

        let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Line(key, row) => contents.push(Object {
                    key: Some(writing.key(key)),
                    size: Some(row.size),
                    e_tag: Some(etag(&row.etag)),
                    last_modified: Some(timestamp(row.modified_ms)),
                    storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                    ..Default::default()
                }),
                Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(writing.key(prefix)) }),
            }
        }
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(writing.key(scope.prefix)),
            delimiter: input.delimiter.map(|delimiter| writing.key(delimiter)),
            start_after: input.start_after.map(|key| writing.key(key)),
            max_keys: Some(limit),
            key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(next.is_some()),
            next_continuation_token: next.map(|key| BASE64_URL_SAFE_NO_PAD.encode(key)),
            contents: Some(contents),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    /// Up to `limit` entries from the key `start` on, and where the next page starts, if there is one.
    async fn objects(
        &self,
        bucket: &str,
        scope: &Scope,
        start: Vec<u8>,
        limit: usize,
    ) -> Result<(Vec<Entry<rows::object::Listed>>, Option<Vec<u8>>)> {
        let mut tx = self.rows.read().await?;
        let bucket = bucket_id(&mut tx, bucket).await?;
        let end = scope.end();
        let mut from = start.max(scope.prefix.clone().into_bytes());
        let mut entries: Vec<Entry<_>> = Vec::new();
        if limit == 0 {
            return Ok((entries, None));
        }
        loop {
            let batch = rows::object::page(&mut tx, bucket, &from, end.as_deref(), i64::from(PAGE_MAX) + 1).await?;
            let exhausted = batch.len() <= PAGE_MAX as usize;
            for row in batch {
                if row.key < from {
                    continue; // below a prefix that is rolled up already
                }
                if entries.len() == limit {
                    return Ok((entries, Some(from)));
                }
                let key = text(row.key.clone())?;
                match scope.roll_up(&key) {
                    Some(prefix) => {
                        from = behind(prefix.as_bytes()).unwrap_or_else(|| after(&row.key));
                        entries.push(Entry::Prefix(prefix.to_owned()));
                    }
                    None => {
                        from = after(&row.key);
                        entries.push(Entry::Line(key, row));
                    }
                }
            }
            if exhausted {
                return Ok((entries, None));
            }
        }
    }

    pub async fn list_multipart_uploads(&self, input: ListMultipartUploadsInput) -> Result<ListMultipartUploadsOutput> {
        let limit = page_size(input.max_uploads)? as usize;
        let writing = Writing::parse(input.encoding_type.as_ref())?;
        let scope = Scope::new(input.prefix.clone(), input.delimiter.clone());
        let key_marker = input.key_marker.clone().unwrap_or_default();
        // S3 ignores an upload id without its key.
        let id_marker = input.upload_id_marker.clone().filter(|_| !key_marker.is_empty());

        let mut tx = self.rows.read().await?;
        let bucket = bucket_id(&mut tx, &input.bucket).await?;
        let end = scope.end();
        // Without an id the marker stands for all uploads of its key: ids are hex, so "~" is behind them all.
        let mut from = (key_marker.clone().into_bytes(), id_marker.clone().unwrap_or_else(|| "~".to_owned()));
        if key_marker.is_empty() {
            from.1.clear();
        }
        if from.0 < scope.prefix.clone().into_bytes() {
            from = (scope.prefix.clone().into_bytes(), String::new());
        }
        // A page may end with a common prefix, whose uploads all count as seen.
        if let Some(prefix) = key_marker.starts_with(&scope.prefix).then(|| scope.roll_up(&key_marker)).flatten()
            && prefix == key_marker
        {
            from = (behind(prefix.as_bytes()).unwrap_or_default(), String::new());
        }
        let mut entries: Vec<Entry<rows::upload::Listed>> = Vec::new();
        let mut truncated = false;
        'pages: while limit > 0 {
            let batch =
                rows::upload::page(&mut tx, bucket, (&from.0, &from.1), end.as_deref(), i64::from(PAGE_MAX)).await?;
            if batch.is_empty() {
                break;
            }
            for row in batch {
                if row.key < from.0 {
                    continue;
                }
                if entries.len() == limit {
                    truncated = true;
                    break 'pages;
                }
                let key = text(row.key.clone())?;
                match scope.roll_up(&key) {
                    Some(prefix) => {
                        from = (behind(prefix.as_bytes()).unwrap_or_default(), String::new());
                        entries.push(Entry::Prefix(prefix.to_owned()));
                    }
                    None => {
                        from = (row.key.clone(), row.id.clone());
                        entries.push(Entry::Line(key, row));
                    }
                }
            }
        }
        drop(tx);

        let next = entries.last().filter(|_| truncated).map(|entry| match entry {
            Entry::Line(key, row) => (key.clone(), row.id.clone()),
            Entry::Prefix(prefix) => (prefix.clone(), String::new()),
        });
        let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Line(key, row) => uploads.push(MultipartUpload {
                    key: Some(writing.key(key)),
                    upload_id: Some(row.id),
                    initiated: Some(timestamp(row.created_ms)),
                    checksum_algorithm: row.plan.map(|plan| plan.algorithm.dto()),
                    checksum_type: row.plan.map(|plan| plan.kind.dto()),
                    storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                    ..Default::default()
                }),
                Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(writing.key(prefix)) }),
            }
        }
        let (next_key, next_id) = next.unzip();
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(writing.key(scope.prefix)),
            delimiter: input.delimiter.map(|delimiter| writing.key(delimiter)),
            key_marker: Some(writing.key(key_marker)),
            upload_id_marker: input.upload_id_marker,
            max_uploads: i32::try_from(limit).ok(),
            is_truncated: Some(truncated),
            next_key_marker: next_key.map(|key| writing.key(key)),
            next_upload_id_marker: next_id,
            uploads: Some(uploads),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }
}

/// A continuation token is the key to go on from.
fn read_token(token: &str) -> S3Result<Vec<u8>> {
    let wrong = |_| -> S3Error { s3_error!(InvalidArgument, "The continuation token provided is incorrect") };
    BASE64_URL_SAFE_NO_PAD.decode(token).map_err(wrong)
}
