//! Which blobs the rows name; all others can be removed.

use std::collections::HashSet;

use sqlx::SqliteConnection;

use crate::blob::BlobId;

/// Returns the blobs that rows name in the folder `first` and in the folders after it, and the last of these folders. Reads
/// whole folders until there are more than `most` blobs, or no more folders.
pub async fn named(conn: &mut SqliteConnection, first: u8, most: u32) -> Result<(HashSet<BlobId>, u8), sqlx::Error> {
    let (from, _) = BlobId::range(first);
    // The folder of the first name beyond `most` is the last one that is read: folders are read as a whole.
    let sql = "SELECT blob FROM object_segment WHERE blob >= ?1
               UNION SELECT blob FROM part_segment WHERE blob >= ?1 ORDER BY blob LIMIT 1 OFFSET ?2";
    let over = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(from.as_row()).bind(most).fetch_optional(&mut *conn).await?;
    let last = match over {
        Some(blob) => BlobId::from_row(&blob)?.shard(),
        None => u8::MAX,
    };
    let (_, until) = BlobId::range(last);
    let sql = "SELECT blob FROM object_segment WHERE blob >= ?1 AND blob <= ?2
               UNION SELECT blob FROM part_segment WHERE blob >= ?1 AND blob <= ?2";
    let blobs = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(from.as_row()).bind(until.as_row()).fetch_all(conn).await?;
    let blobs = blobs.iter().map(|blob| BlobId::from_row(blob)).collect::<Result<_, _>>()?;
    Ok((blobs, last))
}

/// Whether any row names the blob.
pub async fn is_named(conn: &mut SqliteConnection, blob: BlobId) -> Result<bool, sqlx::Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM object_segment WHERE blob = ?1)
                   OR EXISTS (SELECT 1 FROM part_segment WHERE blob = ?1)";
    sqlx::query_scalar(sql).bind(blob.as_row()).fetch_one(conn).await
}

#[cfg(test)]
mod tests {
    use crate::rows::Rows;

    #[tokio::test]
    async fn folders_are_read_as_a_whole_and_several_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = Rows::open(&folder.path().join("metadata.db"), true).await.expect("a database");
        let mut tx = rows.write().await.expect("the writer");
        let object = "INSERT INTO object (id, key, size, etag, modified_ms, headers) VALUES (1, x'', 0, '', 0, '')";
        sqlx::raw_sql(object).execute(&mut *tx).await.expect("an object");
        for (n, shard) in [0_u8, 0, 0, 5, 5, 200].into_iter().enumerate() {
            let mut blob = [0; 16];
            (blob[0], blob[15]) = (shard, u8::try_from(n).expect("a few"));
            let sql = "INSERT INTO object_segment (object_id, part, n, blob, start, length) VALUES (1, 1, ?, ?, 0, 1)";
            let insert = sqlx::query(sql).bind(i64::try_from(n).expect("a few")).bind(&blob[..]);
            insert.execute(&mut *tx).await.expect("a segment");
        }
        let (mut first, mut read) = (0, Vec::new());
        loop {
            let (named, last) = super::named(&mut tx, first, 2).await.expect("names");
            read.push((named.len(), last));
            match last.checked_add(1) {
                Some(next) => first = next,
                None => break,
            }
        }
        assert_eq!(read, [(3, 0), (3, 200), (0, 255)]);
    }
}
