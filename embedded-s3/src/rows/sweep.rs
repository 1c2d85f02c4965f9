//! What tells blobs from litter.

use std::collections::HashSet;

use sqlx::SqliteConnection;

use crate::blob::BlobId;

/// The blobs that rows name, of those whose name starts with the byte `shard`.
pub async fn named(conn: &mut SqliteConnection, shard: u8) -> Result<HashSet<BlobId>, sqlx::Error> {
    let (from, until) = BlobId::range(shard);
    let sql = "SELECT blob FROM object_segment WHERE blob >= ?1 AND blob <= ?2
               UNION SELECT blob FROM part_segment WHERE blob >= ?1 AND blob <= ?2";
    let blobs = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(from.as_row()).bind(until.as_row()).fetch_all(conn).await?;
    blobs.iter().map(|blob| BlobId::from_row(blob)).collect()
}

/// Whether any row names the blob.
pub async fn is_named(conn: &mut SqliteConnection, blob: BlobId) -> Result<bool, sqlx::Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM object_segment WHERE blob = ?1)
                   OR EXISTS (SELECT 1 FROM part_segment WHERE blob = ?1)";
    sqlx::query_scalar(sql).bind(blob.as_row()).fetch_one(conn).await
}
