//! Rows as the bare database sees them, written without the program: what its rules say is said by nobody else here.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sea_orm::{DbErr, Value};
use serde_json::json;
use uuid::Uuid;

use super::TestDb;

pub const STATUSES: [&str; 5] = ["INITIATING", "UPLOADING", "COMPLETED", "FAILED", "CANCELLED"];

/// The arrows of the state machine.
pub const ARROWS: [(&str, &str); 6] = [
    ("INITIATING", "UPLOADING"),
    ("INITIATING", "CANCELLED"),
    ("INITIATING", "FAILED"),
    ("UPLOADING", "COMPLETED"),
    ("UPLOADING", "CANCELLED"),
    ("UPLOADING", "FAILED"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Direct,
    Multipart,
}

/// Column by column, what to insert or what to set.
#[derive(Clone)]
pub struct Row(BTreeMap<&'static str, Value>);

pub fn text(value: &str) -> Value {
    Value::from(value.to_owned())
}

pub const NO_TEXT: Value = Value::String(None);
pub const NO_TIME: Value = Value::ChronoDateTimeUtc(None);

/// Some moment; the same one each time.
pub fn moment() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_795_000_000_123_456).unwrap()
}

impl Row {
    pub fn empty() -> Self {
        Self(BTreeMap::new())
    }

    pub fn with(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.0.insert(column, value.into());
        self
    }

    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    pub fn get(&self, column: &str) -> Value {
        self.0[column].clone()
    }

    /// With NULL in that column, of the type that stands there.
    pub fn null(mut self, column: &'static str) -> Self {
        let value = self.0[column].as_null();
        self.0.insert(column, value);
        self
    }

    pub fn id(&self, column: &str) -> Uuid {
        self.get(column).unwrap()
    }

    pub async fn insert(&self, db: &TestDb, table: &str) -> Result<u64, DbErr> {
        let columns = self.columns().collect::<Vec<_>>().join(", ");
        let places = (1..=self.0.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT INTO {table} ({columns}) VALUES ({places})");
        db.execute(&sql, self.0.values().cloned()).await
    }

    /// Sets these columns on the session of that id.
    pub async fn update_session(&self, db: &TestDb, id: Uuid) -> Result<u64, DbErr> {
        let sets = self.columns().zip(2..).map(|(column, n)| format!("{column} = ${n}")).collect::<Vec<_>>().join(", ");
        let values = std::iter::once(Value::from(id)).chain(self.0.values().cloned());
        db.execute(&format!("UPDATE upload_session SET {sets} WHERE id = $1"), values).await
    }
}

/// A tenant with one brand.
#[derive(Clone, Copy)]
pub struct Place {
    pub tenant: Uuid,
    pub brand: Uuid,
}

impl Place {
    pub async fn create(db: &TestDb) -> Self {
        let tenant = Uuid::now_v7();
        let row = Row::empty().with("id", tenant).with("slug", tenant.to_string()).with("created_at", moment());
        row.insert(db, "tenant").await.unwrap();
        Self { tenant, brand: Self::add_brand(db, tenant).await }
    }

    pub async fn add_brand(db: &TestDb, tenant: Uuid) -> Uuid {
        let brand = Uuid::now_v7();
        let row = Row::empty().with("tenant_id", tenant).with("id", brand);
        row.with("slug", brand.to_string()).with("created_at", moment()).insert(db, "brand").await.unwrap();
        brand
    }

    /// A session that has just begun; nothing of it is stored yet.
    pub fn session(&self, kind: Kind) -> Row {
        let (upload_type, chunk_size, total_parts) = match kind {
            Kind::Direct => ("direct", None, None),
            Kind::Multipart => ("multipart", Some(8_388_608_i64), Some(3_i32)),
        };
        Row::empty()
            .with("tenant_id", self.tenant)
            .with("id", Uuid::now_v7())
            .with("brand_id", self.brand)
            .with("created_by", "ann")
            .with("status", "INITIATING")
            .with("version", 1)
            .with("event_seq", 1)
            .with("chain_head", vec![0_u8; 32])
            .with("upload_type", upload_type)
            .with("profile", "default")
            .with("url_ttl_secs", 900)
            .with("bucket", "bucket")
            .with("chunk_size", chunk_size)
            .with("total_parts", total_parts)
            .with("file_name", "reel.mov")
            .with("file_size", 20_000_000_i64)
            .with("mime_type", "video/quicktime")
            .with("metadata", json!({}))
            .with("asset_id", Uuid::now_v7())
            .with("created_at", moment())
            .with("updated_at", moment())
            .with("last_activity_at", moment())
            .with("expires_at", moment())
    }

    /// The id of a stored session that has come to that state by legal steps.
    pub async fn stored(&self, db: &TestDb, kind: Kind, status: &str) -> Row {
        let row = self.session(kind);
        row.insert(db, "upload_session").await.unwrap();
        let id = row.id("id");
        match status {
            "INITIATING" => {}
            "COMPLETED" => {
                state(kind, "UPLOADING", 2).update_session(db, id).await.unwrap();
                state(kind, "COMPLETED", 3).update_session(db, id).await.unwrap();
            }
            _ => {
                state(kind, status, 2).update_session(db, id).await.unwrap();
            }
        }
        row
    }

    /// What `session` becomes.
    pub fn asset(&self, session: &Row) -> Row {
        Row::empty()
            .with("tenant_id", self.tenant)
            .with("id", session.id("asset_id"))
            .with("upload_session_id", session.id("id"))
            .with("brand_id", self.brand)
            .with("created_by", "ann")
            .with("status", "UPLOADED")
            .with("title", "Reel")
            .with("file_name", "reel.mov")
            .with("file_size", 20_000_000_i64)
            .with("mime_type", "video/quicktime")
            .with("bucket", "bucket")
            .with("object_key", "key")
            .with("etag", "etag")
            .with("checksum_verified", false)
            .with("metadata", json!({}))
            .with("created_at", moment())
    }

    pub fn event(&self, session: &Row) -> Row {
        Row::empty()
            .with("tenant_id", self.tenant)
            .with("upload_session_id", session.id("id"))
            .with("seq", 1)
            .with("at", moment())
            .with("event", "initiate")
            .with("actor", "ann")
            .with("details", json!({}))
            .with("mac", vec![0_u8; 32])
    }
}

/// Every column that a state decides, as that state wants it, in a row that has got to `version` in as many steps.
pub fn state(kind: Kind, status: &str, version: i32) -> Row {
    let at = |state: &str| {
        if status == state { Value::from(moment()) } else { NO_TIME }
    };
    let row = Row::empty()
        .with("status", status)
        .with("version", version)
        .with("event_seq", version)
        .with("completed_at", at("COMPLETED"))
        .with("failed_at", at("FAILED"))
        .with("failure_reason", if status == "FAILED" { text("expired") } else { NO_TEXT })
        .with("cancelled_at", at("CANCELLED"));
    match (kind, status) {
        (_, "INITIATING") | (Kind::Direct, _) => row.with("multipart_upload_id", NO_TEXT),
        (Kind::Multipart, "UPLOADING" | "COMPLETED") => row.with("multipart_upload_id", "upload-1"),
        // FAILED and CANCELLED keep what they have.
        (Kind::Multipart, _) => row,
    }
}
