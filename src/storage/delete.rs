//! Deleting for good, also where a bucket keeps what was deleted.

use super::client::Storage;
use super::error::{Error, Kind, Op};
use super::key::Location;

/// Lists of one key's versions, of a thousand each, before it is taken for one that never ends.
const LISTS_MAX: u32 = 10;

impl Storage {
    /// Deletes the object; one that is not there is fine. In a bucket that keeps versions the store only hides it, so all
    /// versions under this key are deleted after that, and the marker that hides them.
    ///
    /// # Errors
    /// Also where the store has hidden the object and does not let its versions be listed or deleted: the bytes are
    /// there then.
    pub async fn delete(&self, at: &Location) -> Result<(), Error> {
        let op = Op::Delete;
        match self.call(op, || self.0.client.delete_object().bucket(&at.bucket).key(&at.key).send()).await {
            Ok(answer) if answer.delete_marker() == Some(true) => self.delete_versions(at).await,
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_versions(&self, at: &Location) -> Result<(), Error> {
        for _ in 0..LISTS_MAX {
            let versions = self.versions(at).await?;
            if versions.is_empty() {
                return Ok(());
            }
            for version in &versions {
                let request = || self.0.client.delete_object().bucket(&at.bucket).key(&at.key).version_id(version);
                self.call(Op::Delete, || request().send()).await?;
            }
        }
        Err(Error::nonsense(Op::Delete, "the bucket keeps versions that cannot be deleted"))
    }

    /// Ids of versions and of the markers that hide them, a thousand at most.
    async fn versions(&self, at: &Location) -> Result<Vec<String>, Error> {
        let request = || self.0.client.list_object_versions().bucket(&at.bucket).prefix(&at.key);
        let page = self.call(Op::ListObjects, || request().send()).await?;
        let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        // No other key that begins with this one comes before it.
        let own = versions.chain(markers).filter(|(key, _)| *key == Some(at.key.as_str()));
        own.map(|(_, id)| id.map(str::to_owned).ok_or_else(|| Error::nonsense(Op::ListObjects, "a version without id")))
            .collect()
    }
}
