//! Rows of `upload`, `part` and `part_segment`.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{from_json, to_json};
use crate::blob::{BlobId, Segment};
use crate::checksum::{Checksum, Plan};
use crate::headers::Headers;

pub struct Upload {
    pub pk: i64,
    pub headers: Headers,
    pub plan: Option<Plan>,
    /// The ETag of the resulting object; `None` while the upload is open.
    pub completed: Option<String>,
}

#[derive(Clone)]
pub struct Part {
    pub number: i32,
    pub size: i64,
    pub etag: String,
    pub modified_ms: i64,
    pub checksum: Option<Checksum>,
}

/// A line of ListMultipartUploads.
pub struct Listed {
    pub key: Vec<u8>,
    pub id: String,
    pub created_ms: i64,
    pub plan: Option<Plan>,
}

pub async fn insert(
    conn: &mut SqliteConnection,
    id: &str,
    bucket: i64,
    key: &str,
    now_ms: i64,
    headers: &Headers,
    plan: Option<&Plan>,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO upload (id, bucket_id, key, created_ms, headers, checksum) VALUES (?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(id)
        .bind(bucket)
        .bind(key.as_bytes())
        .bind(now_ms)
        .bind(to_json(headers)?)
        .bind(plan.map(to_json).transpose()?)
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns the upload, open or completed, if its id belongs to this bucket and this key.
pub async fn find(
    conn: &mut SqliteConnection,
    id: &str,
    bucket: i64,
    key: &str,
) -> Result<Option<Upload>, sqlx::Error> {
    let sql = "SELECT pk, headers, checksum, etag FROM upload WHERE id = ? AND bucket_id = ? AND key = ?";
    let row = sqlx::query(sql).bind(id).bind(bucket).bind(key.as_bytes()).fetch_optional(conn).await?;
    row.map(|row| {
        Ok(Upload {
            pk: row.try_get(0)?,
            headers: from_json(row.try_get(1)?)?,
            plan: row.try_get::<Option<&str>, _>(2)?.map(from_json).transpose()?,
            completed: row.try_get(3)?,
        })
    })
    .transpose()
}

/// Marks an upload completed and deletes its part rows; their blobs already belong to an object.
pub async fn complete(conn: &mut SqliteConnection, pk: i64, now_ms: i64, etag: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM part WHERE upload_pk = ?").bind(pk).execute(&mut *conn).await?;
    let sql = "UPDATE upload SET completed_ms = ?, etag = ? WHERE pk = ?";
    sqlx::query(sql).bind(now_ms).bind(etag).bind(pk).execute(conn).await?;
    Ok(())
}

/// Deletes the rows of uploads completed before `before_ms`.
pub async fn forget_completed(conn: &mut SqliteConnection, before_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM upload WHERE completed_ms < ?").bind(before_ms).execute(conn).await?;
    Ok(())
}

/// Deletes an open upload and its parts. Returns the blobs that no row names any more.
pub async fn abort(conn: &mut SqliteConnection, pk: i64) -> Result<Vec<BlobId>, sqlx::Error> {
    let sql = "SELECT DISTINCT s.blob FROM part p JOIN part_segment s ON s.part_pk = p.pk WHERE p.upload_pk = ?1
                  AND NOT EXISTS (SELECT 1 FROM object_segment o WHERE o.blob = s.blob)
                  AND NOT EXISTS (SELECT 1 FROM part_segment t JOIN part q ON q.pk = t.part_pk
                                  WHERE t.blob = s.blob AND q.upload_pk <> ?1)";
    let orphans = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(pk).fetch_all(&mut *conn).await?;
    sqlx::query("DELETE FROM part WHERE upload_pk = ?").bind(pk).execute(&mut *conn).await?;
    sqlx::query("DELETE FROM upload WHERE pk = ?").bind(pk).execute(conn).await?;
    orphans.iter().map(|blob| BlobId::from_row(blob)).collect()
}

/// Stores a part, replacing the one with its number. Returns the blobs that no row names any more.
pub async fn put_part(
    conn: &mut SqliteConnection,
    upload: i64,
    part: &Part,
    segments: &[Segment],
) -> Result<Vec<BlobId>, sqlx::Error> {
    let old: Option<i64> = sqlx::query_scalar("SELECT pk FROM part WHERE upload_pk = ? AND number = ?")
        .bind(upload)
        .bind(part.number)
        .fetch_optional(&mut *conn)
        .await?;
    if let Some(old) = old {
        sqlx::query("UPDATE part SET upload_pk = NULL WHERE pk = ?").bind(old).execute(&mut *conn).await?;
    }
    let sql = "INSERT INTO part (upload_pk, number, size, etag, modified_ms, checksum)
               VALUES (?, ?, ?, ?, ?, ?) RETURNING pk";
    let pk: i64 = sqlx::query_scalar(sql)
        .bind(upload)
        .bind(part.number)
        .bind(part.size)
        .bind(&part.etag)
        .bind(part.modified_ms)
        .bind(part.checksum.as_ref().map(to_json).transpose()?)
        .fetch_one(&mut *conn)
        .await?;
    for (n, segment) in (0_i64..).zip(segments) {
        sqlx::query("INSERT INTO part_segment (part_pk, n, blob, start, length) VALUES (?, ?, ?, ?, ?)")
            .bind(pk)
            .bind(n)
            .bind(segment.blob.as_row())
            .bind(segment.start.cast_signed())
            .bind(segment.length.cast_signed())
            .execute(&mut *conn)
            .await?;
    }
    match old {
        Some(old) => retire_part(conn, old).await,
        None => Ok(Vec::new()),
    }
}

/// Deletes a part that is not in the list of a CompleteMultipartUpload. Returns the blobs that no row names any more.
pub async fn drop_part(conn: &mut SqliteConnection, upload: i64, number: i32) -> Result<Vec<BlobId>, sqlx::Error> {
    let pk = sqlx::query_scalar("SELECT pk FROM part WHERE upload_pk = ? AND number = ?")
        .bind(upload)
        .bind(number)
        .fetch_one(&mut *conn)
        .await?;
    retire_part(conn, pk).await
}

async fn retire_part(conn: &mut SqliteConnection, pk: i64) -> Result<Vec<BlobId>, sqlx::Error> {
    let sql = "SELECT DISTINCT s.blob FROM part_segment s WHERE s.part_pk = ?1
                  AND NOT EXISTS (SELECT 1 FROM object_segment o WHERE o.blob = s.blob)
                  AND NOT EXISTS (SELECT 1 FROM part_segment t WHERE t.blob = s.blob AND t.part_pk <> ?1)";
    let orphans = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(pk).fetch_all(&mut *conn).await?;
    sqlx::query("DELETE FROM part WHERE pk = ?").bind(pk).execute(conn).await?;
    orphans.iter().map(|blob| BlobId::from_row(blob)).collect()
}

/// Returns up to `limit` parts numbered above `after`, in order.
pub async fn parts(conn: &mut SqliteConnection, upload: i64, after: i32, limit: i64) -> Result<Vec<Part>, sqlx::Error> {
    let sql = "SELECT number, size, etag, modified_ms, checksum FROM part
               WHERE upload_pk = ? AND number > ? ORDER BY number LIMIT ?";
    let rows = sqlx::query(sql).bind(upload).bind(after).bind(limit).fetch_all(conn).await?;
    rows.iter().map(part).collect()
}

fn part(row: &SqliteRow) -> Result<Part, sqlx::Error> {
    Ok(Part {
        number: row.try_get(0)?,
        size: row.try_get(1)?,
        etag: row.try_get(2)?,
        modified_ms: row.try_get(3)?,
        checksum: row.try_get::<Option<&str>, _>(4)?.map(from_json).transpose()?,
    })
}

/// Returns up to `limit` open uploads of a bucket after `(key, id)`, ordered by key and then by id, which is the order of
/// creation. Only keys below `until`, if given.
pub async fn page(
    conn: &mut SqliteConnection,
    bucket: i64,
    after: (&[u8], &str),
    until: Option<&[u8]>,
    limit: i64,
) -> Result<Vec<Listed>, sqlx::Error> {
    let sql = "SELECT key, id, created_ms, checksum FROM upload
               WHERE bucket_id = ?1 AND completed_ms IS NULL AND (key, id) > (?2, ?3) AND (?4 IS NULL OR key < ?4)
               ORDER BY key, id LIMIT ?5";
    let rows =
        sqlx::query(sql).bind(bucket).bind(after.0).bind(after.1).bind(until).bind(limit).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(Listed {
                key: row.try_get(0)?,
                id: row.try_get(1)?,
                created_ms: row.try_get(2)?,
                plan: row.try_get::<Option<&str>, _>(3)?.map(from_json).transpose()?,
            })
        })
        .collect()
}
