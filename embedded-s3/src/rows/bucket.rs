//! Rows of `bucket`.

use sqlx::{Row, SqliteConnection};

use super::{from_json, to_json};
use crate::cors::Rule;

pub struct BucketRow {
    pub name: String,
    pub created_ms: i64,
    pub cors: Option<Vec<Rule>>,
}

/// All buckets, by name.
pub async fn all(conn: &mut SqliteConnection) -> Result<Vec<BucketRow>, sqlx::Error> {
    let rows = sqlx::query("SELECT name, created_ms, cors FROM bucket ORDER BY name").fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(BucketRow {
                name: row.try_get(0)?,
                created_ms: row.try_get(1)?,
                cors: row.try_get::<Option<String>, _>(2)?.as_deref().map(from_json).transpose()?,
            })
        })
        .collect()
}

pub async fn id(conn: &mut SqliteConnection, name: &str) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM bucket WHERE name = ?").bind(name).fetch_optional(conn).await
}

/// Returns false if the bucket already exists.
pub async fn insert(conn: &mut SqliteConnection, name: &str, now_ms: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO bucket (name, created_ms) VALUES (?, ?) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(now_ms)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the bucket has no object and no open upload.
pub async fn is_empty(conn: &mut SqliteConnection, id: i64) -> Result<bool, sqlx::Error> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM object WHERE bucket_id = ?1)
                  AND NOT EXISTS (SELECT 1 FROM upload WHERE bucket_id = ?1 AND completed_ms IS NULL)";
    sqlx::query_scalar(sql).bind(id).fetch_one(conn).await
}

/// Deletes an empty bucket, with the rows of uploads completed in it.
pub async fn delete(conn: &mut SqliteConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM upload WHERE bucket_id = ?").bind(id).execute(&mut *conn).await?;
    sqlx::query("DELETE FROM bucket WHERE id = ?").bind(id).execute(conn).await?;
    Ok(())
}

/// `None` removes the rules. Returns false if the bucket does not exist.
pub async fn set_cors(conn: &mut SqliteConnection, name: &str, rules: Option<&[Rule]>) -> Result<bool, sqlx::Error> {
    let json = rules.map(|rules| to_json(&rules)).transpose()?;
    let done = sqlx::query("UPDATE bucket SET cors = ? WHERE name = ?").bind(json).bind(name).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}
