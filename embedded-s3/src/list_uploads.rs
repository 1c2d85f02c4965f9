//! ListMultipartUploads: the open uploads of a bucket, by key and then in order of creation.

use s3s::dto::*;

use crate::fault::Result;
use crate::headers::timestamp;
use crate::list::{Entry, PAGE_MAX, Scope, Writing, behind, page_size, text};
use crate::rows;
use crate::rows::upload::Listed;
use crate::store::{Store, bucket_id};

/// A position between two uploads: after this key and id.
type Marker = (Vec<u8>, String);

/// Sorts after every upload id; ids consist of hex digits.
const BEHIND_ALL_IDS: &str = "~";

impl Store {
    pub async fn list_multipart_uploads(&self, input: ListMultipartUploadsInput) -> Result<ListMultipartUploadsOutput> {
        let limit = page_size(input.max_uploads)?;
        let writing = Writing::parse(input.encoding_type.as_ref())?;
        let scope = Scope::new(input.prefix, input.delimiter.clone());
        let start = start(&scope, input.key_marker.as_deref(), input.upload_id_marker.as_deref());
        let (entries, truncated) = self.uploads(&input.bucket, &scope, start, limit as usize).await?;

        let (next_key_marker, next_upload_id_marker) = match entries.last().filter(|_| truncated) {
            Some(Entry::Line(key, row)) => (Some(writing.key(key)), Some(row.id.clone())),
            Some(Entry::Prefix(prefix)) => (Some(writing.key(prefix)), None),
            None => (None, None),
        };
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
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(writing.key(scope.prefix)),
            delimiter: input.delimiter.map(|delimiter| writing.key(delimiter)),
            key_marker: input.key_marker.map(|key| writing.key(key)),
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(limit),
            is_truncated: Some(truncated),
            next_key_marker,
            next_upload_id_marker,
            uploads: Some(uploads),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    /// Returns up to `limit` entries after `marker`, and whether there are more.
    async fn uploads(
        &self,
        bucket: &str,
        scope: &Scope,
        mut marker: Marker,
        limit: usize,
    ) -> Result<(Vec<Entry<Listed>>, bool)> {
        let mut tx = self.rows.read().await?;
        let bucket = bucket_id(&mut tx, bucket).await?;
        let end = scope.end();
        let mut entries = Vec::new();
        if limit == 0 {
            return Ok((entries, false));
        }
        loop {
            let after = (marker.0.as_slice(), marker.1.as_str());
            let batch = rows::upload::page(&mut tx, bucket, after, end.as_deref(), i64::from(PAGE_MAX)).await?;
            if batch.is_empty() {
                return Ok((entries, false));
            }
            for row in batch {
                if row.key < marker.0 {
                    continue; // below a prefix that is already rolled up
                }
                if entries.len() == limit {
                    return Ok((entries, true));
                }
                let key = text(row.key.clone())?;
                match scope.roll_up(&key) {
                    Some(prefix) => {
                        marker = behind_prefix(prefix);
                        entries.push(Entry::Prefix(prefix.to_owned()));
                    }
                    None => {
                        marker = (row.key.clone(), row.id.clone());
                        entries.push(Entry::Line(key, row));
                    }
                }
            }
        }
    }
}

/// Returns where a page begins. A key without an id skips all its uploads, a common prefix all uploads under it. An id
/// without a key is ignored.
fn start(scope: &Scope, key: Option<&str>, id: Option<&str>) -> Marker {
    let first = (scope.prefix.clone().into_bytes(), String::new());
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return first;
    };
    if scope.is_common_prefix(key) {
        return behind_prefix(key);
    }
    let id = id.filter(|id| !id.is_empty()).unwrap_or(BEHIND_ALL_IDS);
    first.max((key.as_bytes().to_vec(), id.to_owned()))
}

fn behind_prefix(prefix: &str) -> Marker {
    (behind(prefix.as_bytes()).expect("a common prefix ends with its delimiter"), String::new())
}
