//! Lists of what a bucket holds, page by page. Each page starts after the last entry read, not at the store's own marker:
//! so a page brings something new, or the list ends with an error.

use aws_sdk_s3::primitives::DateTime as SdkTime;
use aws_sdk_s3::types::EncodingType;
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;

use super::client::{Storage, unquoted};
use super::clock::{StoreClock, utc};
use super::error::{Error, Op};
use super::key::{Location, UPLOADS};

/// Limit of uploads under one key. A session opens one and a race a handful, so more than this are not ours.
const UPLOADS_PER_KEY_MAX: usize = 10_000;

/// Up to a thousand entries, and the time, by the store's own clock, at which it listed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub store_time: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    pub key: String,
    /// Without quotes; empty if the store does not report it.
    pub etag: String,
    pub last_modified: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUpload {
    pub key: String,
    pub upload_id: String,
    pub initiated: DateTime<Utc>,
}

/// The objects under a prefix, by key.
#[derive(Debug)]
pub struct Objects<'a> {
    storage: &'a Storage,
    bucket: &'a str,
    prefix: &'a str,
    last: Option<String>,
    is_over: bool,
}

/// The multipart uploads under a prefix, by key.
#[derive(Debug)]
pub struct Uploads<'a> {
    storage: &'a Storage,
    bucket: &'a str,
    prefix: &'a str,
    last: Option<(String, Option<String>)>,
    /// Uploads read so far under the last key.
    of_key: usize,
    is_over: bool,
}

/// An upload as the store lists it, possibly without a time.
#[derive(Debug)]
struct Found {
    key: String,
    upload_id: String,
    initiated: Option<SdkTime>,
}

impl Storage {
    pub fn objects<'a>(&'a self, bucket: &'a str, prefix: &'a str) -> Objects<'a> {
        Objects { storage: self, bucket, prefix, last: None, is_over: false }
    }

    pub fn uploads<'a>(&'a self, bucket: &'a str, prefix: &'a str) -> Uploads<'a> {
        Uploads { storage: self, bucket, prefix, last: None, of_key: 0, is_over: false }
    }

    /// Returns the ids of all unfinished uploads under exactly this key, oldest first.
    pub async fn list_uploads(&self, at: &Location) -> Result<Vec<String>, Error> {
        let mut pages = self.uploads(&at.bucket, &at.key);
        let mut uploads = Vec::new();
        while let Some(found) = pages.read(&StoreClock::default()).await? {
            // Keys are sorted: every other key that begins with this one comes after it.
            let is_past = found.last().is_some_and(|upload| upload.key != at.key);
            uploads.extend(found.into_iter().filter(|upload| upload.key == at.key));
            if is_past {
                break;
            }
        }
        let began = |upload: &Found| upload.initiated.map(|time| (time.secs(), time.subsec_nanos()));
        uploads.sort_by(|a, b| (began(a), &a.upload_id).cmp(&(began(b), &b.upload_id)));
        Ok(uploads.into_iter().map(|upload| upload.upload_id).collect())
    }

    /// Returns the object's ETag from a list. The store may take it from elsewhere than its answer to a HEAD.
    pub async fn listed_etag(&self, at: &Location) -> Result<Option<String>, Error> {
        let page = self.objects(&at.bucket, &at.key).next().await?;
        let own = page.into_iter().flat_map(|page| page.items).find(|object| object.key == at.key);
        Ok(own.map(|object| object.etag).filter(|etag| !etag.is_empty()))
    }

    /// Returns whether neither a HEAD nor a list shows an object under this key. Each of the two answers alone may be stale
    /// or wrong.
    pub async fn is_gone(&self, at: &Location) -> Result<bool, Error> {
        if self.find(at).await?.is_some() {
            return Ok(false);
        }
        let page = self.objects(&at.bucket, &at.key).next().await?;
        Ok(page.is_none_or(|page| page.items.iter().all(|object| object.key != at.key)))
    }

    /// Returns whether the store lists multipart uploads by the beginning of their keys. MinIO treats a prefix as a whole
    /// key, so its empty list proves nothing. Opens an upload under [`Location::probe`], looks for it, and aborts it.
    pub async fn lists_uploads_by_prefix(&self, bucket: &str) -> Result<bool, Error> {
        let at = Location::probe(bucket);
        let probe = self.open_multipart(&at, "application/octet-stream").await?;
        // It comes before every session's key, so it is on the first page.
        let page = self.uploads(bucket, UPLOADS).next().await;
        self.abort_multipart(&at, &probe).await?;
        // These are of earlier probes that were interrupted.
        for earlier in self.list_uploads(&at).await? {
            self.abort_multipart(&at, &earlier).await?;
        }
        Ok(page?.is_some_and(|page| page.items.iter().any(|upload| upload.upload_id == probe)))
    }

    /// Returns what is directly under a prefix: keys, and prefixes that end with a slash; a thousand at most. `true` if
    /// there are more.
    pub async fn folders(&self, bucket: &str, prefix: &str) -> Result<(Vec<String>, bool), Error> {
        let op = Op::ListObjects;
        let request = || self.0.client.list_objects_v2().bucket(bucket).prefix(prefix).delimiter("/");
        let page = self.call(op, || request().encoding_type(EncodingType::Url).send()).await?;
        let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
        let keys = page.contents().iter().map(|object| object.key());
        let folders = page.common_prefixes().iter().map(|folder| folder.prefix());
        let found = keys.chain(folders).map(|name| decoded(op, name, is_encoded)).collect::<Result<_, _>>()?;
        Ok((found, page.is_truncated() == Some(true)))
    }
}

impl Objects<'_> {
    /// Starts after this key.
    pub fn after(mut self, key: Option<String>) -> Self {
        self.last = key;
        self
    }

    /// Returns the last key that was read.
    pub fn last_key(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Returns the next page; `None` after the last one.
    ///
    /// # Errors
    /// Also if the pages do not come to an end: the keys of each page must come after those of the page before.
    pub async fn next(&mut self) -> Result<Option<Page<ListedObject>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let (op, clock) = (Op::ListObjects, StoreClock::default());
        let request = || self.storage.0.client.list_objects_v2().bucket(self.bucket).prefix(self.prefix);
        let page = self
            .storage
            .call(op, || {
                let request = request().encoding_type(EncodingType::Url).set_start_after(self.last.clone());
                request.customize().interceptor(clock.clone()).send()
            })
            .await?;
        let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
        let mut items: Vec<ListedObject> = Vec::with_capacity(page.contents().len());
        for object in page.contents() {
            let key = decoded(op, object.key(), is_encoded)?;
            let last = items.last().map(|item| &item.key).or(self.last.as_ref());
            if last.is_some_and(|last| *last >= key) || !key.starts_with(self.prefix) {
                return Err(Error::nonsense(op, "keys out of order, or of another prefix"));
            }
            let etag = object.e_tag().map(unquoted).unwrap_or_default();
            items.push(ListedObject { key, etag, last_modified: time(op, object.last_modified())? });
        }
        self.is_over = page.is_truncated() != Some(true);
        if !self.is_over && items.is_empty() {
            return Err(Error::nonsense(op, "a list of objects without an end"));
        }
        self.last = items.last().map(|item| item.key.clone()).or(self.last.take());
        Ok(Some(Page { items, store_time: clock.time(op)? }))
    }
}

impl Uploads<'_> {
    /// Starts after this key; uploads under the key itself are left out too.
    pub fn after(mut self, key: Option<String>) -> Self {
        self.last = key.map(|key| (key, None));
        self
    }

    /// Returns the last key that was read.
    pub fn last_key(&self) -> Option<&str> {
        self.last.as_ref().map(|(key, _)| key.as_str())
    }

    /// Returns the next page; `None` after the last one.
    ///
    /// # Errors
    /// Also if the pages do not come to an end: each page must continue after the page before.
    pub async fn next(&mut self) -> Result<Option<Page<ListedUpload>>, Error> {
        let (op, clock) = (Op::ListUploads, StoreClock::default());
        let Some(found) = self.read(&clock).await? else { return Ok(None) };
        let dated = |Found { key, upload_id, initiated }| {
            time(op, initiated.as_ref()).map(|initiated| ListedUpload { key, upload_id, initiated })
        };
        Ok(Some(Page { items: found.into_iter().map(dated).collect::<Result<_, _>>()?, store_time: clock.time(op)? }))
    }

    async fn read(&mut self, clock: &StoreClock) -> Result<Option<Vec<Found>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let op = Op::ListUploads;
        let before = self.last.clone();
        let (key, id) = before.clone().map_or((None, None), |(key, id)| (Some(key), id));
        let request = || self.storage.0.client.list_multipart_uploads().bucket(self.bucket).prefix(self.prefix);
        let page = self
            .storage
            .call(op, || {
                let request = request().encoding_type(EncodingType::Url);
                let request = request.set_key_marker(key.clone()).set_upload_id_marker(id.clone());
                request.customize().interceptor(clock.clone()).send()
            })
            .await?;
        let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
        let mut found: Vec<Found> = Vec::with_capacity(page.uploads().len());
        for upload in page.uploads() {
            let key = decoded(op, upload.key(), is_encoded)?;
            let Some(upload_id) = upload.upload_id().map(str::to_owned) else {
                return Err(Error::nonsense(op, "an upload without id"));
            };
            found.push(Found { key, upload_id, initiated: upload.initiated().copied() });
        }
        // Garage has the right uploads on a page, but sorts them by id. Those of one key stay in the store's own order.
        found.sort_by(|a, b| a.key.cmp(&b.key));
        for upload in &found {
            self.follow(&upload.key, &upload.upload_id)?;
        }
        self.is_over = page.is_truncated() != Some(true);
        if !self.is_over && self.last == before {
            return Err(Error::nonsense(op, "a list of uploads without an end"));
        }
        Ok(Some(found))
    }

    /// Checks that the list goes forward. Keys must ascend; the ids of one key may have any order, and there may be at most
    /// [`UPLOADS_PER_KEY_MAX`] of them.
    fn follow(&mut self, key: &str, upload_id: &str) -> Result<(), Error> {
        let is_same_key = self.last.as_ref().is_some_and(|(last, _)| last == key);
        self.of_key = if is_same_key { self.of_key + 1 } else { 1 };
        let is_behind = self.last.as_ref().is_none_or(|(last, id)| {
            last.as_str() < key || (is_same_key && id.as_deref().is_some_and(|id| id != upload_id))
        });
        if !is_behind || !key.starts_with(self.prefix) || self.of_key > UPLOADS_PER_KEY_MAX {
            return Err(Error::nonsense(Op::ListUploads, "uploads out of order, or a list without an end"));
        }
        self.last = Some((key.to_owned(), Some(upload_id.to_owned())));
        Ok(())
    }
}

/// Decodes a listed key. A key may hold characters that XML cannot, so stores can encode it as in a URL; some write `+` for
/// a space.
fn decoded(op: Op, key: Option<&str>, is_encoded: bool) -> Result<String, Error> {
    let key = key.ok_or_else(|| Error::nonsense(op, "an entry without a key"))?;
    if !is_encoded {
        return Ok(key.to_owned());
    }
    let key = key.replace('+', " ");
    let decoded = percent_decode_str(&key).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::nonsense(op, "a key that is not UTF-8"))
}

fn time(op: Op, time: Option<&SdkTime>) -> Result<DateTime<Utc>, Error> {
    time.and_then(utc).ok_or_else(|| Error::nonsense(op, "an entry without a time"))
}
