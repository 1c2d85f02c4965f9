//! The store: rows, blobs, and the few things that all verbs need.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use s3s::{S3Error, S3ErrorCode, s3_error};
use sqlx::SqliteConnection;
use tokio_util::task::TaskTracker;

use crate::blob::{BlobId, Blobs, Hold, NewBlob, Segment};
use crate::cors::Cors;
use crate::fault::Result;
use crate::rows::object::ObjectRow;
use crate::rows::{self, Rows, Tx};

/// One version of an object, opened for reading.
pub struct Opened {
    pub row: ObjectRow,
    pub segments: Vec<Segment>,
    /// The result of [`part_sizes`].
    pub part_sizes: Vec<i64>,
    pub hold: Hold,
}

/// Cheap to clone; every verb is a method of it, in the file of its noun.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub struct Inner {
    pub rows: Rows,
    pub blobs: Arc<Blobs>,
    pub cors: Cors,
    pub region: String,
    /// Blobs whose commit failed: see [`Store::commit_with`].
    in_doubt: Mutex<Vec<BlobId>>,
    /// Held as long as anything may still write: a connection keeps the store alive, too.
    _lock: File,
    /// Commits and unlinks that outlive the request that asked for them.
    pub tasks: TaskTracker,
}

impl std::ops::Deref for Store {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Store {
    pub fn new(lock: File, rows: Rows, blobs: Arc<Blobs>, cors: Cors, region: String) -> Self {
        let in_doubt = Mutex::default();
        Self(Arc::new(Inner { rows, blobs, cors, region, in_doubt, _lock: lock, tasks: TaskTracker::new() }))
    }

    /// Commits rows that name a new blob.
    ///
    /// If the commit fails, it is unknown whether the rows exist: the part of them that was written may count after a
    /// crash, until another commit overwrites it. So the blob stays, and is checked again after the next commit that
    /// succeeds. On a full disk it would otherwise take space until the next start.
    pub async fn commit_with(&self, tx: Tx, blob: Option<&mut NewBlob>) -> Result<()> {
        let id = blob.map(|blob| {
            blob.leave_to_rows();
            blob.id()
        });
        if let Err(error) = tx.commit().await {
            self.in_doubt().extend(id);
            return Err(error.into());
        }
        let doubtful = std::mem::take(&mut *self.in_doubt());
        if !doubtful.is_empty() {
            let store = self.clone();
            self.tasks.spawn(async move { store.settle(doubtful).await });
        }
        Ok(())
    }

    /// Removes the blobs of failed commits that no row names.
    async fn settle(&self, doubtful: Vec<BlobId>) {
        match self.rows.unnamed(&doubtful).await {
            Ok(orphans) => self.discard(orphans),
            Err(error) => {
                tracing::debug!(%error, "cannot determine yet which blobs a failed commit left behind");
                self.in_doubt().extend(doubtful);
            }
        }
    }

    fn in_doubt(&self) -> std::sync::MutexGuard<'_, Vec<BlobId>> {
        self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a commit to its end, even if the client disconnects meanwhile: after a transaction that was cut off at COMMIT
    /// it is unknown which blobs have rows.
    pub async fn detached<T: Send + 'static>(
        &self,
        commit: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.tasks.spawn(commit).await?
    }

    /// Removes blobs that no row names any more. Returns at once.
    pub fn discard(&self, orphans: Vec<BlobId>) {
        if !orphans.is_empty() {
            let blobs = Arc::clone(&self.blobs);
            self.tasks.spawn_blocking(move || blobs.discard(&orphans));
        }
    }

    /// Opens an object for reading. Its bytes stay on the disk until the hold is dropped.
    ///
    /// # Errors
    /// NoSuchBucket, NoSuchKey.
    pub async fn open(&self, bucket: &str, key: &str, part: Option<i32>) -> Result<Opened> {
        loop {
            let mut tx = self.rows.read().await?;
            let row = find(&mut tx, bucket, key).await?;
            let segments = rows::object::segments(&mut tx, row.id).await?;
            let part_sizes = part_sizes(&mut tx, &row, part).await?;
            drop(tx);
            let hold = self.blobs.hold(&segments);
            // If the version was replaced before the hold, its blobs may be gone: open the newer version.
            if rows::object::is_current(&mut *self.rows.reader().await?, row.id).await? {
                return Ok(Opened { row, segments, part_sizes, hold });
            }
        }
    }

    /// Waits for all commits and unlinks, without a time limit, and closes the database.
    pub async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.rows.close().await;
    }
}

/// Returns the sizes of the object's parts if one of them is requested, else nothing. Call it in the transaction that read
/// the row: once a version is replaced, its parts are gone.
pub async fn part_sizes(conn: &mut SqliteConnection, row: &ObjectRow, part: Option<i32>) -> Result<Vec<i64>> {
    match part {
        Some(_) => Ok(rows::object::part_sizes(conn, row.id).await?),
        None => Ok(Vec::new()),
    }
}

/// # Errors
/// NoSuchBucket.
pub async fn bucket_id(conn: &mut SqliteConnection, name: &str) -> Result<i64> {
    match rows::bucket::id(conn, name).await? {
        Some(id) => Ok(id),
        None => Err(no_such_bucket().into()),
    }
}

/// Returns the id of the bucket, and the object under the key, if there is one.
///
/// # Errors
/// NoSuchBucket.
pub async fn look(conn: &mut SqliteConnection, bucket: &str, key: &str) -> Result<(i64, Option<ObjectRow>)> {
    rows::object::find(conn, bucket, key).await?.ok_or_else(|| no_such_bucket().into())
}

/// # Errors
/// NoSuchBucket, NoSuchKey.
pub async fn find(conn: &mut SqliteConnection, bucket: &str, key: &str) -> Result<ObjectRow> {
    match look(conn, bucket, key).await? {
        (_, Some(row)) => Ok(row),
        (_, None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.").into()),
    }
}

fn no_such_bucket() -> S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}

/// The version id that S3 gives to objects in a bucket without versioning.
pub const ONLY_VERSION: &str = "null";

/// Refuses any other version id.
///
/// # Errors
/// NoSuchVersion.
pub fn only_version(id: Option<&str>) -> Result<()> {
    match id {
        None | Some(ONLY_VERSION) => Ok(()),
        Some(_) => Err(S3ErrorCode::NoSuchVersion.into()),
    }
}
