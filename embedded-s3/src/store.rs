//! The store: rows, blobs, and the few things that all verbs need.

use std::fs::File;
use std::sync::Arc;

use s3s::{S3ErrorCode, s3_error};
use sqlx::SqliteConnection;
use tokio_util::task::TaskTracker;

use crate::blob::{BlobId, Blobs, Hold, Segment};
use crate::cors::Cors;
use crate::fault::Result;
use crate::rows::object::ObjectRow;
use crate::rows::{self, Rows};

/// Cheap to clone; every verb is a method of it, in the file of its noun.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub struct Inner {
    pub rows: Rows,
    pub blobs: Arc<Blobs>,
    pub cors: Cors,
    pub region: String,
    /// Held as long as anything may still write: a connection too keeps the store alive.
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
        Self(Arc::new(Inner { rows, blobs, cors, region, _lock: lock, tasks: TaskTracker::new() }))
    }

    /// Runs a commit to its end, even when the client hangs up meanwhile: a transaction cut off
    /// at COMMIT leaves nobody who knows which blobs are named now.
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

    /// An object with its bytes, which stay on the disk while the hold lives.
    ///
    /// # Errors
    /// NoSuchBucket, NoSuchKey.
    pub async fn open(&self, bucket: &str, key: &str) -> Result<(ObjectRow, Vec<Segment>, Hold)> {
        loop {
            let mut tx = self.rows.read().await?;
            let bucket = bucket_id(&mut tx, bucket).await?;
            let row = find(&mut tx, bucket, key).await?;
            let segments = rows::object::segments(&mut tx, row.id).await?;
            drop(tx);
            let hold = self.blobs.hold(&segments);
            // Replaced before we held them, the blobs may be gone: then there is a newer version to read.
            let mut tx = self.rows.read().await?;
            if rows::object::is_current(&mut tx, row.id).await? {
                return Ok((row, segments, hold));
            }
        }
    }

    /// Commits what is asked for at the end, whatever the grace.
    pub async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.rows.close().await;
    }
}

/// # Errors
/// NoSuchBucket.
pub async fn bucket_id(conn: &mut SqliteConnection, name: &str) -> Result<i64> {
    match rows::bucket::id(conn, name).await? {
        Some(id) => Ok(id),
        None => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist").into()),
    }
}

/// # Errors
/// NoSuchKey.
pub async fn find(conn: &mut SqliteConnection, bucket: i64, key: &str) -> Result<ObjectRow> {
    match rows::object::find(conn, bucket, key).await? {
        Some(row) => Ok(row),
        None => Err(s3_error!(NoSuchKey, "The specified key does not exist.").into()),
    }
}

/// Refuses a version id: the store keeps one version, which S3 calls `null`.
///
/// # Errors
/// NoSuchVersion.
pub fn only_version(id: Option<&str>) -> Result<()> {
    match id {
        None | Some("null") => Ok(()),
        Some(_) => Err(S3ErrorCode::NoSuchVersion.into()),
    }
}
