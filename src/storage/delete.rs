//! Permanent deletion, also in buckets that keep deleted versions.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::future::join_all;

use super::client::Storage;
use super::error::{Error, ErrorKind, Op};
use super::key::Location;

/// S3's limit on the keys of one DeleteObjects.
const DELETED_AT_ONCE: usize = 1_000;
/// Lists of one key's versions, of a thousand each, after which the list counts as endless.
const LISTS_MAX: u32 = 10;

impl Storage {
    /// Deletes the object; succeeds if there is none. In a bucket that keeps versions the store only hides the object. Then
    /// all versions under this key are deleted too, and the marker that hides them.
    ///
    /// # Errors
    /// Also if the store has hidden the object but does not let its versions be listed or deleted: then the bytes are still
    /// there.
    pub async fn delete(&self, at: &Location) -> Result<(), Error> {
        let op = Op::Delete;
        match self.call(op, || self.0.client.delete_object().bucket(&at.bucket).key(&at.key).send()).await {
            Ok(answer) if answer.delete_marker() == Some(true) => self.delete_versions(at).await,
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes many objects, up to [`DELETED_AT_ONCE`] by one request in each bucket. Returns a result for each in order, as
    /// [`Storage::delete`]. Not every store accepts such requests: an object that the store does not report as deleted is
    /// deleted by a request of its own.
    pub async fn delete_all(&self, all: &[Location]) -> Vec<Result<(), Error>> {
        let mut by_bucket: HashMap<&str, Vec<&Location>> = HashMap::new();
        for at in all {
            by_bucket.entry(&at.bucket).or_default().push(at);
        }
        let mut deleted = HashSet::new();
        for (bucket, objects) in by_bucket {
            for some in objects.chunks(DELETED_AT_ONCE) {
                if some.len() > 1 && self.0.deletes_many.load(Relaxed) {
                    deleted.extend(self.delete_together(bucket, some).await);
                }
            }
        }
        join_all(all.iter().map(async |at| if deleted.contains(at) { Ok(()) } else { self.delete(at).await })).await
    }

    /// Returns the objects that the store reports as deleted, and not only as hidden.
    async fn delete_together<'a>(&self, bucket: &str, objects: &[&'a Location]) -> Vec<&'a Location> {
        let named = objects.iter().map(|at| ObjectIdentifier::builder().key(&at.key).build());
        let named = named.collect::<Result<_, _>>().map(|named| Delete::builder().set_objects(Some(named)).build());
        let Ok(Ok(delete)) = named else { return vec![] };
        let request = || self.0.client.delete_objects().bucket(bucket).delete(delete.clone());
        match self.call(Op::Delete, || request().send()).await {
            Ok(answer) => {
                let gone = answer.deleted().iter().filter(|deleted| deleted.delete_marker() != Some(true));
                let gone: HashSet<_> = gone.filter_map(|deleted| deleted.key()).collect();
                objects.iter().copied().filter(|at| gone.contains(at.key.as_str())).collect()
            }
            Err(error) => {
                self.0.deletes_many.fetch_and(error.kind != ErrorKind::Invalid, Relaxed);
                tracing::debug!(%error, "deleting objects one by one");
                vec![]
            }
        }
    }

    async fn delete_versions(&self, at: &Location) -> Result<(), Error> {
        for round in 0..LISTS_MAX {
            let (versions, is_truncated) = self.versions(at).await?;
            if versions.is_empty() {
                // The store has just reported that it made a marker: a list without it is stale.
                return match round {
                    0 => Err(Error::unclear(Op::Delete, "the list of versions lacks the marker that was just made")),
                    _ if is_truncated => Err(Error::unclear(Op::Delete, "the list of versions is cut off")),
                    _ => Ok(()),
                };
            }
            for version in &versions {
                let request = || self.0.client.delete_object().bucket(&at.bucket).key(&at.key).version_id(version);
                self.call(Op::Delete, || request().send()).await?;
            }
        }
        Err(Error::nonsense(Op::Delete, "the bucket keeps versions that cannot be deleted"))
    }

    /// Returns the ids of versions and of the markers that hide them, a thousand at most; `true` if the list goes on.
    async fn versions(&self, at: &Location) -> Result<(Vec<String>, bool), Error> {
        let request = || self.0.client.list_object_versions().bucket(&at.bucket).prefix(&at.key);
        let page = self.call(Op::ListObjects, || request().send()).await?;
        let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        // Keys are sorted: every other key that begins with this one comes after it.
        let own = versions.chain(markers).filter(|(key, _)| *key == Some(at.key.as_str()));
        let nameless = || Error::nonsense(Op::ListObjects, "a version without id");
        let ids: Result<_, _> = own.map(|(_, id)| id.map(str::to_owned).ok_or_else(nameless)).collect();
        Ok((ids?, page.is_truncated() == Some(true)))
    }
}
