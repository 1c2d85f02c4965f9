//! Rows of `object` and `object_segment`.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{from_json, to_json};
use crate::blob::{BlobId, Segment};
use crate::checksum::Checksum;
use crate::headers::Headers;

/// The properties of one version of an object; its bytes are segments.
#[derive(Clone, Debug)]
pub struct Object {
    pub size: i64,
    pub etag: String,
    pub modified_ms: i64,
    pub headers: Headers,
    pub checksum: Option<Checksum>,
}

pub struct ObjectRow {
    pub id: i64,
    pub object: Object,
}

/// A line of a listing.
pub struct Listed {
    pub key: Vec<u8>,
    pub size: i64,
    pub etag: String,
    pub modified_ms: i64,
}

/// Returns the id of the bucket, and the object under the key, if there is one; `None` if the bucket does not exist.
pub async fn find(
    conn: &mut SqliteConnection,
    bucket: &str,
    key: &str,
) -> Result<Option<(i64, Option<ObjectRow>)>, sqlx::Error> {
    let sql = "SELECT o.id, o.size, o.etag, o.modified_ms, o.headers, o.checksum, b.id
               FROM bucket b LEFT JOIN object o ON o.bucket_id = b.id AND o.key = ? WHERE b.name = ?";
    let row = sqlx::query(sql).bind(key.as_bytes()).bind(bucket).fetch_optional(conn).await?;
    let Some(row) = row else { return Ok(None) };
    let object = row.try_get::<Option<i64>, _>(0)?.map(|_| object_row(&row)).transpose()?;
    Ok(Some((row.try_get(6)?, object)))
}

fn object_row(row: &SqliteRow) -> Result<ObjectRow, sqlx::Error> {
    Ok(ObjectRow {
        id: row.try_get(0)?,
        object: Object {
            size: row.try_get(1)?,
            etag: row.try_get(2)?,
            modified_ms: row.try_get(3)?,
            headers: from_json(row.try_get(4)?)?,
            checksum: row.try_get::<Option<&str>, _>(5)?.map(from_json).transpose()?,
        },
    })
}

/// Whether this version is still the current one of its key.
pub async fn is_current(conn: &mut SqliteConnection, id: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM object WHERE id = ?)").bind(id).fetch_one(conn).await
}

/// The bytes of an object, in order.
pub async fn segments(conn: &mut SqliteConnection, id: i64) -> Result<Vec<Segment>, sqlx::Error> {
    let sql = "SELECT blob, start, length FROM object_segment WHERE object_id = ? ORDER BY part, n";
    let rows = sqlx::query(sql).bind(id).fetch_all(conn).await?;
    rows.iter().map(segment).collect()
}

pub(super) fn segment(row: &SqliteRow) -> Result<Segment, sqlx::Error> {
    Ok(Segment {
        blob: BlobId::from_row(row.try_get(0)?)?,
        start: row.try_get::<i64, _>(1)?.cast_unsigned(),
        length: row.try_get::<i64, _>(2)?.cast_unsigned(),
    })
}

/// Sizes of the parts that a completed upload was made of, in order.
pub async fn part_sizes(conn: &mut SqliteConnection, id: i64) -> Result<Vec<i64>, sqlx::Error> {
    let sql = "SELECT SUM(length) FROM object_segment WHERE object_id = ? GROUP BY part ORDER BY part";
    sqlx::query_scalar(sql).bind(id).fetch_all(conn).await
}

/// Frees the key of a version for the next version. The same transaction must then call `retire`.
pub async fn detach(conn: &mut SqliteConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE object SET bucket_id = NULL WHERE id = ?").bind(id).execute(conn).await?;
    Ok(())
}

/// Deletes a version. Returns the blobs that no row names any more.
pub async fn retire(conn: &mut SqliteConnection, id: i64) -> Result<Vec<BlobId>, sqlx::Error> {
    let sql = "SELECT DISTINCT s.blob FROM object_segment s WHERE s.object_id = ?1
                  AND NOT EXISTS (SELECT 1 FROM object_segment o WHERE o.blob = s.blob AND o.object_id <> ?1)
                  AND NOT EXISTS (SELECT 1 FROM part_segment p WHERE p.blob = s.blob)";
    let orphans = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(id).fetch_all(&mut *conn).await?;
    sqlx::query("DELETE FROM object WHERE id = ?").bind(id).execute(conn).await?;
    orphans.iter().map(|blob| BlobId::from_row(blob)).collect()
}

pub async fn insert(conn: &mut SqliteConnection, bucket: i64, key: &str, object: &Object) -> Result<i64, sqlx::Error> {
    let sql = "INSERT INTO object (bucket_id, key, size, etag, modified_ms, headers, checksum)
               VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id";
    sqlx::query_scalar(sql)
        .bind(bucket)
        .bind(key.as_bytes())
        .bind(object.size)
        .bind(&object.etag)
        .bind(object.modified_ms)
        .bind(to_json(&object.headers)?)
        .bind(object.checksum.as_ref().map(to_json).transpose()?)
        .fetch_one(conn)
        .await
}

/// Makes one whole blob the bytes of a version.
pub async fn own_blob(conn: &mut SqliteConnection, id: i64, blob: BlobId, length: i64) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO object_segment (object_id, part, n, blob, start, length) VALUES (?, 1, 0, ?, 0, ?)")
        .bind(id)
        .bind(blob.as_row())
        .bind(length)
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives the version `to` the bytes of the version `from`. No bytes are copied.
pub async fn share_segments(conn: &mut SqliteConnection, from: i64, to: i64) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO object_segment (object_id, part, n, blob, start, length)
               SELECT ?2, part, n, blob, start, length FROM object_segment WHERE object_id = ?1";
    sqlx::query(sql).bind(from).bind(to).execute(conn).await?;
    Ok(())
}

/// Gives a version the bytes of all parts of an upload. No bytes are copied.
pub async fn take_parts(conn: &mut SqliteConnection, upload: i64, id: i64) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO object_segment (object_id, part, n, blob, start, length)
               SELECT ?2, p.number, s.n, s.blob, s.start, s.length
               FROM part p JOIN part_segment s ON s.part_pk = p.pk WHERE p.upload_pk = ?1";
    sqlx::query(sql).bind(upload).bind(id).execute(conn).await?;
    Ok(())
}

/// Returns up to `limit` objects with `from <= key` (and `key < until`, if given), in the order of their keys.
pub async fn page(
    conn: &mut SqliteConnection,
    bucket: i64,
    from: &[u8],
    until: Option<&[u8]>,
    limit: i64,
) -> Result<Vec<Listed>, sqlx::Error> {
    let sql = "SELECT key, size, etag, modified_ms FROM object
               WHERE bucket_id = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key LIMIT ?4";
    let rows = sqlx::query(sql).bind(bucket).bind(from).bind(until).bind(limit).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(Listed {
                key: row.try_get(0)?,
                size: row.try_get(1)?,
                etag: row.try_get(2)?,
                modified_ms: row.try_get(3)?,
            })
        })
        .collect()
}
