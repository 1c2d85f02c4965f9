use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::{AssetId, BrandId, SessionId, TenantId};

/// The public states; upper case on the wire and in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Status {
    #[sea_orm(string_value = "INITIATING")]
    Initiating,
    #[sea_orm(string_value = "UPLOADING")]
    Uploading,
    #[sea_orm(string_value = "COMPLETED")]
    Completed,
    #[sea_orm(string_value = "FAILED")]
    Failed,
    #[sea_orm(string_value = "CANCELLED")]
    Cancelled,
}

/// How the bytes travel: one presigned PUT, or the parts of an S3 multipart upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum UploadType {
    #[sea_orm(string_value = "direct")]
    Direct,
    #[sea_orm(string_value = "multipart")]
    Multipart,
}

/// Why a session ended without an asset; a closed list, so that clients can branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum FailureReason {
    /// Nobody touched it for too long.
    #[sea_orm(string_value = "abandoned")]
    Abandoned,
    /// It outlived its `expires_at`.
    #[sea_orm(string_value = "expired")]
    Expired,
    /// The store never opened it, or lost what it held.
    #[sea_orm(string_value = "storage_error")]
    StorageError,
    /// The stored object is not what was announced.
    #[sea_orm(string_value = "verification_failed")]
    VerificationFailed,
    /// An administrator ended it.
    #[sea_orm(string_value = "operator")]
    Operator,
}

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "upload_session")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SessionId,
    pub brand_id: BrandId,
    /// The token's `sub` at initiation.
    pub created_by: String,

    /// Changed by one statement of the code base only, and only along the arrows that the database knows too.
    pub status: Status,
    /// Counts changes of state, from 1.
    pub version: i32,
    /// The last event's number; advanced by the same statement that records what happened.
    pub event_seq: i32,
    /// The event chain's last link, 32 bytes; advanced by the statement that advances `event_seq`.
    pub chain_head: Vec<u8>,
    pub failure_reason: Option<FailureReason>,

    pub upload_type: UploadType,
    /// The upload profile whose limits were applied; what mattered of it is recorded here.
    pub profile: String,
    /// Life of a presigned URL of this session, in seconds.
    pub url_ttl_secs: i32,
    /// The bucket in which it was opened: a tenant may move to another one later.
    pub bucket: String,
    pub multipart_upload_id: Option<String>,
    /// Bytes of every part but the last.
    pub chunk_size: Option<i64>,
    pub total_parts: Option<i32>,

    pub file_name: String,
    pub file_size: i64,
    pub mime_type: String,
    /// 64 lower-case hex digits, as the client announced it.
    pub checksum_sha256: Option<String>,
    /// A JSON object.
    pub metadata: Json,

    pub client_reference: Option<String>,
    pub batch_reference: Option<String>,
    pub fingerprint: Option<String>,
    pub idempotency_key: Option<String>,

    /// Reserved when the session opens, so that it can be promised; a row of `asset` exists once COMPLETED.
    pub asset_id: AssetId,
    /// The intent to complete: set before the store is asked to assemble the object.
    pub completing_at: Option<DateTime<Utc>>,
    pub completing_by: Option<String>,
    pub completing_title: Option<String>,
    pub completing_metadata: Option<Json>,

    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub last_activity_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub completed_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
    pub cancelled_at: Option<DateTime<Utc>>,
    /// When nothing was left in the store under the session's own key, for good.
    pub storage_cleared_at: Option<DateTime<Utc>>,
    /// When a cleanup first failed to clear it. Stays when a later one does.
    pub clear_failed_at: Option<DateTime<Utc>>,
}

impl ActiveModelBehavior for ActiveModel {}
