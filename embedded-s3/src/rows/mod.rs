//! The metadata: which bucket holds which key, and of which segments of blobs each object consists.
//!
//! SQLite in WAL mode with `synchronous=FULL`: a commit that returned is on the disk. One connection
//! writes, a few read. All have small caches, because the server around the store needs the memory.

pub mod bucket;
pub mod object;
pub mod sweep;
pub mod upload;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, Transaction};

use crate::blob::BlobId;

/// The `PRAGMA user_version` of `schema.sql`.
const SCHEMA_VERSION: i64 = 1;

pub type Tx = Transaction<'static, Sqlite>;

pub struct Rows {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// Why the metadata could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("its schema version {0} is newer than this program supports")]
    Newer(i64),
    #[error("it has no tables")]
    Lost,
}

impl Rows {
    /// Opens the database at `path`. If `may_be_new`, creates the tables of one that is missing or has none.
    ///
    /// # Errors
    /// [`OpenError::Lost`] if it has no tables and must not be new: SQLite also opens a file that a disk or a restore left
    /// empty. [`OpenError::Newer`] if its schema is newer than this program.
    pub async fn open(path: &Path, may_be_new: bool) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .statement_cache_capacity(32)
            .pragma("cache_size", "-512") // KiB, per connection
            .pragma("journal_size_limit", "4194304");
        let writer = pool().min_connections(1).max_connections(1).connect_with(options.clone()).await?;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        match sqlx::query_scalar::<_, i64>("PRAGMA user_version").fetch_one(&mut *tx).await? {
            0 if may_be_new => {
                sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *tx).await?;
            }
            SCHEMA_VERSION => {}
            other => {
                tx.rollback().await?;
                writer.close().await;
                return Err(if other == 0 { OpenError::Lost } else { OpenError::Newer(other) });
            }
        }
        tx.commit().await?;
        let readers = pool()
            .min_connections(1)
            .max_connections(4)
            .idle_timeout(Duration::from_secs(60))
            .connect_with(options)
            .await?;
        Ok(Self { writer, readers })
    }

    /// Returns a snapshot to read from.
    pub async fn read(&self) -> Result<Tx, sqlx::Error> {
        self.readers.begin().await
    }

    /// Returns a connection for a single read statement: with a snapshot it would take three statements.
    pub async fn reader(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.readers.acquire().await
    }

    /// Begins the only write transaction; other callers wait until it ends.
    ///
    /// Commit it in a task that is never cancelled (`Store::detached`): if the future is dropped during COMMIT, it is
    /// unknown whether its blobs have rows.
    pub async fn write(&self) -> Result<Tx, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    /// Returns the blobs that no row names.
    pub async fn unnamed(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>, sqlx::Error> {
        let mut tx = self.read().await?;
        let mut unnamed = Vec::new();
        for blob in blobs {
            if !sweep::is_named(&mut tx, *blob).await? {
                unnamed.push(*blob);
            }
        }
        Ok(unnamed)
    }

    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await; // the last connection to close checkpoints the WAL
    }
}

/// Returns a pool that hands out a connection only outside of a transaction. On a full disk and on an I/O error SQLite
/// rolls back by itself, which sqlx's count of open transactions does not notice: the ROLLBACK after it fails, and the
/// next user would work inside a transaction that is never committed. Such a connection is closed and replaced.
fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new().before_acquire(|connection, _| {
        let is_in_doubt = connection.is_in_transaction();
        if is_in_doubt {
            tracing::warn!("closing a connection to the metadata whose transaction state is unknown");
        }
        Box::pin(async move { Ok(!is_in_doubt) })
    })
}

/// Milliseconds since 1970, the unit of times in the rows.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Parses the JSON of a column; a column that does not parse was not written by this program.
fn from_json<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
