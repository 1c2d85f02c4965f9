//! Listings of objects in their three forms, and what all listings share: pages in the order of the keys' bytes,
//! prefixes, delimiters.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Error, S3Result, s3_error};

use crate::condition::etag;
use crate::fault::Result;
use crate::headers::timestamp;
use crate::rows;
use crate::store::{ONLY_VERSION, Store, bucket_id};

/// S3's largest page.
pub const PAGE_MAX: i32 = 1000;

/// The characters that `encoding-type=url` does not encode.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// # Errors
/// InvalidArgument for a negative size.
pub fn page_size(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        None => Ok(PAGE_MAX),
        Some(size) if size >= 0 => Ok(size.min(PAGE_MAX)),
        Some(_) => Err(s3_error!(InvalidArgument, "The size of a page must not be negative.")),
    }
}

/// Which keys a listing covers, and which of them it rolls up into common prefixes.
pub struct Scope {
    pub prefix: String,
    pub delimiter: String,
}

impl Scope {
    pub fn new(prefix: Option<String>, delimiter: Option<String>) -> Self {
        Self { prefix: prefix.unwrap_or_default(), delimiter: delimiter.unwrap_or_default() }
    }

    /// Returns the common prefix that `key` is rolled up into, if any.
    pub fn roll_up<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.delimiter.is_empty() {
            return None;
        }
        let at = key[self.prefix.len()..].find(&self.delimiter)?;
        Some(&key[..self.prefix.len() + at + self.delimiter.len()])
    }

    /// Returns where the page after `marker` starts: after this key, or after all keys under a common prefix.
    fn behind_marker(&self, marker: Option<&str>) -> Vec<u8> {
        match marker.filter(|marker| !marker.is_empty()) {
            None => Vec::new(),
            Some(marker) if self.is_common_prefix(marker) => {
                behind(marker.as_bytes()).expect("a common prefix ends with its delimiter")
            }
            Some(marker) => after(marker.as_bytes()),
        }
    }

    /// Whether a key equals its common prefix. If a page ends with a common prefix, that is the marker of the next page.
    pub fn is_common_prefix(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.roll_up(key) == Some(key)
    }

    /// Returns the first key after all that start with the prefix.
    pub fn end(&self) -> Option<Vec<u8>> {
        behind(self.prefix.as_bytes())
    }
}

/// Returns the first key after all that start with `prefix`; `None` if every key starts with it.
/// UTF-8 has no byte 0xff, so the last byte can always be incremented.
pub fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// Returns the first key after `key` itself.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// How the keys of an answer are encoded.
pub struct Writing {
    url: bool,
}

impl Writing {
    pub fn parse(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub fn key(&self, key: impl Into<String>) -> String {
        let key = key.into();
        if self.url { utf8_percent_encode(&key, PLAIN).to_string() } else { key }
    }
}

/// One entry of a page.
pub enum Entry<T> {
    Line(String, T),
    Prefix(String),
}

impl<T> Entry<T> {
    fn name(&self) -> &str {
        match self {
            Self::Line(key, _) => key,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// Splits a page into objects and common prefixes.
fn lines(entries: Vec<Entry<rows::object::Listed>>, writing: &Writing) -> (Vec<Object>, Vec<CommonPrefix>) {
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
    (contents, prefixes)
}

/// Converts the key of a row to text. Only text is ever stored.
pub fn text(key: Vec<u8>) -> std::result::Result<String, sqlx::Error> {
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

        let (contents, prefixes) = lines(entries, &writing);
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

    /// Version 1, which many tools use by default: a page continues after a key.
    pub async fn list_objects(&self, input: ListObjectsInput) -> Result<ListObjectsOutput> {
        let limit = page_size(input.max_keys)?;
        let writing = Writing::parse(input.encoding_type.as_ref())?;
        let scope = Scope::new(input.prefix, input.delimiter.clone());
        let start = scope.behind_marker(input.marker.as_deref());
        let (entries, next) = self.objects(&input.bucket, &scope, start, limit as usize).await?;
        // Without a delimiter the last key is the marker of the next page, and S3 returns no NextMarker.
        let last = entries.last().filter(|_| next.is_some() && !scope.delimiter.is_empty());
        let next_marker = last.map(|entry| writing.key(entry.name()));

        let (contents, prefixes) = lines(entries, &writing);
        Ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(writing.key(scope.prefix)),
            delimiter: input.delimiter.map(|delimiter| writing.key(delimiter)),
            marker: Some(writing.key(input.marker.unwrap_or_default())),
            max_keys: Some(limit),
            is_truncated: Some(next.is_some()),
            next_marker,
            contents: Some(contents),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    /// Lists each object as the only version of its key, with the id `null` as in S3. So tools that empty a bucket version
    /// by version work here, too.
    pub async fn list_object_versions(&self, input: ListObjectVersionsInput) -> Result<ListObjectVersionsOutput> {
        let limit = page_size(input.max_keys)?;
        let writing = Writing::parse(input.encoding_type.as_ref())?;
        let scope = Scope::new(input.prefix, input.delimiter.clone());
        let start = scope.behind_marker(input.key_marker.as_deref());
        let (entries, next) = self.objects(&input.bucket, &scope, start, limit as usize).await?;
        let last = entries.last().filter(|_| next.is_some());
        let next_key_marker = last.map(|entry| writing.key(entry.name()));
        let next_version_id_marker = matches!(last, Some(Entry::Line(..))).then(|| ONLY_VERSION.to_owned());

        let (contents, prefixes) = lines(entries, &writing);
        let version = |object: Object| ObjectVersion {
            version_id: Some(ONLY_VERSION.to_owned()),
            is_latest: Some(true),
            key: object.key,
            size: object.size,
            e_tag: object.e_tag,
            last_modified: object.last_modified,
            storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
            ..Default::default()
        };
        Ok(ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(writing.key(scope.prefix)),
            delimiter: input.delimiter.map(|delimiter| writing.key(delimiter)),
            key_marker: Some(writing.key(input.key_marker.unwrap_or_default())),
            version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
            max_keys: Some(limit),
            is_truncated: Some(next.is_some()),
            next_key_marker,
            next_version_id_marker,
            versions: Some(contents.into_iter().map(version).collect()),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    /// Returns up to `limit` entries from the key `start` on, and where the next page starts, if there is one.
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
        // With a delimiter many keys may become one entry.
        let batch_max = if scope.delimiter.is_empty() { limit + 1 } else { PAGE_MAX as usize };
        loop {
            let batch = rows::object::page(&mut tx, bucket, &from, end.as_deref(), batch_max as i64).await?;
            let exhausted = batch.len() < batch_max;
            for row in batch {
                if row.key < from {
                    continue; // below a prefix that is already rolled up
                }
                if entries.len() == limit {
                    return Ok((entries, Some(from)));
                }
                let key = text(row.key.clone())?;
                match scope.roll_up(&key) {
                    Some(prefix) => {
                        from = behind(prefix.as_bytes()).expect("a common prefix ends with its delimiter");
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
}

/// Decodes a continuation token: the key that the page starts from.
fn read_token(token: &str) -> S3Result<Vec<u8>> {
    let wrong = |_| -> S3Error { s3_error!(InvalidArgument, "The continuation token provided is incorrect") };
    BASE64_URL_SAFE_NO_PAD.decode(token).map_err(wrong)
}
