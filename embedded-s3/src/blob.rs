//! Blobs: files with random names in 256 folders. Only the metadata says what they belong to.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use uuid::Uuid;

/// The random name of a blob. It does not depend on bucket or key, so no key becomes a path on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobId([u8; 16]);

impl BlobId {
    fn random() -> Self {
        Self(*Uuid::new_v4().as_bytes())
    }

    /// The first and the last possible name in a folder.
    pub fn range(shard: u8) -> (Self, Self) {
        let (mut first, mut last) = ([0; 16], [0xff; 16]);
        (first[0], last[0]) = (shard, shard);
        (Self(first), Self(last))
    }

    /// The folder.
    pub fn shard(&self) -> u8 {
        self.0[0]
    }

    pub fn as_row(&self) -> &[u8] {
        &self.0
    }

    pub fn from_row(bytes: &[u8]) -> Result<Self, sqlx::Error> {
        bytes.try_into().map(Self).map_err(|_| sqlx::Error::Decode("a blob's name has 16 bytes".into()))
    }

    fn parse(file_name: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(file_name, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// A stretch of a blob; an object is a list of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub blob: BlobId,
    pub start: u64,
    pub length: u64,
}

/// The folder of blobs, and which of them are being read.
pub struct Blobs {
    dir: PathBuf,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    readers: HashMap<BlobId, usize>,
    /// Blobs that no row names any more; their last reader unlinks them.
    doomed: HashSet<BlobId>,
}

impl Blobs {
    /// Creates missing folders durably: a blob's own folder must not vanish in a power cut.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for shard in 0..=u8::MAX {
            match fs::create_dir(dir.join(hex::encode([shard]))) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        sync_dir(&dir)?;
        Ok(Self { dir, held: Mutex::default() })
    }

    fn path(&self, id: BlobId) -> PathBuf {
        self.dir.join(hex::encode(&id.0[..1])).join(hex::encode(id.0))
    }

    /// Creates an empty blob. Blocks.
    pub fn create(&self) -> io::Result<(NewBlob, File)> {
        let id = BlobId::random();
        let path = self.path(id);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok((NewBlob { id, path: Some(path) }, file))
    }

    /// Blocks.
    pub fn open_blob(&self, id: BlobId) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// The blobs in one folder. Blocks.
    pub fn list(&self, shard: u8) -> io::Result<Vec<BlobId>> {
        let dir = self.dir.join(hex::encode([shard]));
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name();
            match name.to_str().and_then(BlobId::parse) {
                Some(id) => blobs.push(id),
                None => tracing::warn!(dir = %dir.display(), ?name, "the store holds a file that is not a blob"),
            }
        }
        Ok(blobs)
    }

    /// Whether there is any blob at all. Blocks.
    pub fn is_empty(&self) -> io::Result<bool> {
        for shard in 0..=u8::MAX {
            if !self.list(shard)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Unlinks blobs that no row names. Those that are being read are unlinked by their last reader. Blocks.
    pub fn discard(&self, ids: &[BlobId]) {
        let free = {
            let mut held = self.held();
            let (read, free): (Vec<_>, Vec<_>) = ids.iter().copied().partition(|id| held.readers.contains_key(id));
            held.doomed.extend(read);
            free
        };
        for id in free {
            self.unlink(id);
        }
    }

    fn unlink(&self, id: BlobId) {
        unlink(&self.path(id));
    }

    /// Keeps blobs on the disk until the returned hold is dropped, even if no row names them any more.
    ///
    /// Rows read before the call may be stale by now: check again that the version is current.
    pub fn hold(self: &Arc<Self>, segments: &[Segment]) -> Hold {
        let ids: Box<[_]> = segments.iter().map(|segment| segment.blob).collect();
        let mut held = self.held();
        for id in &ids {
            *held.readers.entry(*id).or_default() += 1;
        }
        drop(held);
        Hold { blobs: Arc::clone(self), ids }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Blobs::hold`].
pub struct Hold {
    blobs: Arc<Blobs>,
    ids: Box<[BlobId]>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut free = Vec::new();
        {
            let mut held = self.blobs.held();
            for id in &self.ids {
                let Some(readers) = held.readers.get_mut(id) else {
                    continue;
                };
                *readers -= 1;
                if *readers == 0 {
                    held.readers.remove(id);
                    if held.doomed.remove(id) {
                        free.push(*id);
                    }
                }
            }
        }
        if !free.is_empty() {
            let blobs = Arc::clone(&self.blobs);
            off_the_runtime(move || free.into_iter().for_each(|id| blobs.unlink(id)));
        }
    }
}

/// A blob that no row names yet. Dropping it unlinks the file; if the process dies, the next start removes it.
pub struct NewBlob {
    id: BlobId,
    path: Option<PathBuf>,
}

impl NewBlob {
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Keeps the file from here on; the rows decide. Call it *before* COMMIT: a COMMIT that fails may have taken effect, and
    /// a blob without a row is removed at the next start, while a row without its blob is lost data.
    pub fn leave_to_rows(&mut self) {
        self.path = None;
    }

    /// Makes the name durable; the caller syncs the bytes. Blocks.
    pub fn sync_name(&self) -> io::Result<()> {
        match self.path.as_deref().and_then(Path::parent) {
            Some(dir) => sync_dir(dir),
            None => Ok(()),
        }
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            off_the_runtime(move || unlink(&path));
        }
    }
}

fn unlink(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a blob; the next start tries again");
        }
        _ => {}
    }
}

/// Unlinking gigabytes takes a while; a thread of the runtime must not wait for it.
fn off_the_runtime(work: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(blobs: &Blobs) -> BlobId {
        let (mut blob, _) = blobs.create().expect("a blob");
        blob.leave_to_rows();
        blob.id()
    }

    #[test]
    fn a_blob_that_is_read_outlives_its_rows() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = Arc::new(Blobs::open(dir.path().join("blobs")).expect("blobs"));
        let (read, unread) = (written(&blobs), written(&blobs));
        let segment = Segment { blob: read, start: 0, length: 1 };
        let (first, second) = (blobs.hold(&[segment]), blobs.hold(&[segment, segment]));

        blobs.discard(&[read, unread]);
        assert!(blobs.open_blob(unread).is_err());
        drop(first);
        assert!(blobs.open_blob(read).is_ok());
        drop(second);
        assert!(blobs.open_blob(read).is_err());
        assert!(blobs.is_empty().expect("a listing"));
    }

    #[test]
    fn a_new_blob_that_nobody_keeps_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(dir.path().join("blobs")).expect("blobs");
        drop(blobs.create().expect("a blob"));
        assert!(blobs.is_empty().expect("a listing"));
        let kept = written(&blobs);
        assert_eq!(blobs.list(kept.0[0]).expect("a listing"), [kept]);
    }
}
