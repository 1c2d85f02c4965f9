//! What a bucket holds, page by page. A page is asked for by what was read last, whatever the store says of it: so a
//! page brings something new, or the list ends with an error.

use aws_sdk_s3::primitives::DateTime as SdkTime;
use aws_sdk_s3::types::EncodingType;
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;

use super::client::{Storage, unquoted};
use super::clock::{StoreClock, utc};
use super::error::{Error, Op};
use super::key::{Location, UPLOADS};

/// More uploads than this under one key are none of ours: a session opens one, a race a handful.
const UPLOADS_PER_KEY_MAX: usize = 10_000;

/// Up to a thousand entries, and the time by the store's own clock at which it listed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub store_time: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    pub key: String,
    /// Without quotes; empty where the store does not say it.
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

/// An upload as the store lists it, some of them without a time.
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

    /// The ids of all unfinished uploads under exactly this key, oldest first.
    pub async fn list_uploads(&self, at: &Location) -> Result<Vec<String>, Error> {
        let mut pages = self.uploads(&at.bucket, &at.key);
        let mut uploads = Vec::new();
        while let Some(found) = pages.read(&StoreClock::default()).await? {
            // Keys come in order, and no other one that begins with this one comes before it.
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

    /// The object's ETag as a list tells it, which may come from elsewhere than what a look at the object tells.
    pub async fn listed_etag(&self, at: &Location) -> Result<Option<String>, Error> {
        let page = self.objects(&at.bucket, &at.key).next().await?;
        let own = page.into_iter().flat_map(|page| page.items).find(|object| object.key == at.key);
        Ok(own.map(|object| object.etag).filter(|etag| !etag.is_empty()))
    }

    /// Whether there is no object under this key: neither by a look at it nor by a list. Either of the two may be an old
    /// answer, or a wrong one.
    pub async fn is_gone(&self, at: &Location) -> Result<bool, Error> {
        if self.find(at).await?.is_some() {
            return Ok(false);
        }
        let page = self.objects(&at.bucket, &at.key).next().await?;
        Ok(page.is_none_or(|page| page.items.iter().all(|object| object.key != at.key)))
    }

    /// Whether the store lists multipart uploads by the beginning of their keys. MinIO takes a prefix for a whole key, and
    /// then a list without an entry says nothing. Opens an upload under [`Location::probe`], looks for it, and aborts it.
    pub async fn lists_uploads_by_prefix(&self, bucket: &str) -> Result<bool, Error> {
        let at = Location::probe(bucket);
        let probe = self.open_multipart(&at, "application/octet-stream").await?;
        // No key of a session comes before it, so it is on the first page.
        let page = self.uploads(bucket, UPLOADS).next().await;
        self.abort_multipart(&at, &probe).await?;
        // Of probes that were cut short.
        for earlier in self.list_uploads(&at).await? {
            self.abort_multipart(&at, &earlier).await?;
        }
        Ok(page?.is_some_and(|page| page.items.iter().any(|upload| upload.upload_id == probe)))
    }

    /// What lies right under a prefix: keys, and prefixes that end with a slash; a thousand at most. `true`: there are
    /// more.
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
    /// Only those behind this key.
    pub fn after(mut self, key: Option<String>) -> Self {
        self.last = key;
        self
    }

    /// The last key that was read.
    pub fn last_key(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// Also where the pages do not come to an end: the keys of each must lie behind those of the one before.
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
    /// Only those behind this key, and none under it.
    pub fn after(mut self, key: Option<String>) -> Self {
        self.last = key.map(|key| (key, None));
        self
    }

    /// The last key that was read.
    pub fn last_key(&self) -> Option<&str> {
        self.last.as_ref().map(|(key, _)| key.as_str())
    }

    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// Also where the pages do not come to an end: each must go on from the one before.
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
        // Garage has the right uploads on a page, but by their ids; those of one key stay in the store's own order.
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

    /// Keys only go forward; the ids of one key come in an order of the store's own, and are so many at most.
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

/// Keys may hold what XML cannot; stores that know better write them as in a URL, some with `+` for a space.
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
