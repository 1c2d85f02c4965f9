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

impl Status {
    pub const ALL: [Self; 5] = [Self::Initiating, Self::Uploading, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name on the wire and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initiating => "INITIATING",
            Self::Uploading => "UPLOADING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether the state is final: no event changes it.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Initiating | Self::Uploading => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
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
    /// The session had no activity for too long.
    #[sea_orm(string_value = "abandoned")]
    Abandoned,
    /// The session passed its `expires_at`.
    #[sea_orm(string_value = "expired")]
    Expired,
    /// The store never opened the upload, or lost its data.
    #[sea_orm(string_value = "storage_error")]
    StorageError,
    /// The stored object is not the announced file.
    #[sea_orm(string_value = "verification_failed")]
    VerificationFailed,
    /// An operator or a manager ended the session.
    #[sea_orm(string_value = "operator")]
    Operator,
}

impl FailureReason {
    /// The name on the wire and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Expired => "expired",
            Self::StorageError => "storage_error",
            Self::VerificationFailed => "verification_failed",
            Self::Operator => "operator",
        }
    }
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

    /// Changed only by `session/transition.rs`, and only along the transitions that the database enforces too.
    pub status: Status,
    /// Counts changes of state, from 1.
    pub version: i32,
    /// The last event's number; advanced by the UPDATE that makes the change.
    pub event_seq: i32,
    /// The event chain's last link, 32 bytes; advanced together with `event_seq`.
    pub chain_head: Vec<u8>,
    pub failure_reason: Option<FailureReason>,

    pub upload_type: UploadType,
    /// The upload profile whose limits were applied. The values that matter later are recorded in this row.
    pub profile: String,
    /// Lifetime of this session's presigned URLs, in seconds.
    pub url_ttl_secs: i32,
    /// The bucket in which the session was opened; the tenant may move to another bucket later.
    pub bucket: String,
    pub multipart_upload_id: Option<String>,
    /// Size of every part but the last, in bytes.
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

    /// Reserved when the session is created, so that clients know it early; the row in `asset` exists once COMPLETED.
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
    /// Since when nothing is left in the store under the session's own key.
    pub storage_cleared_at: Option<DateTime<Utc>>,
    /// When a cleanup first failed to clear the session's storage. Kept after a later cleanup succeeds.
    pub clear_failed_at: Option<DateTime<Utc>>,
}

impl ActiveModelBehavior for ActiveModel {}

#[cfg(test)]
mod tests {
    use sea_orm::Iterable as _;

    use super::*;

    #[test]
    fn names_are_those_that_the_database_has() {
        assert!(Status::iter().eq(Status::ALL));
        for status in Status::ALL {
            assert_eq!(status.to_value(), status.name());
            assert_eq!(Status::named(status.name()), Some(status));
        }
        for reason in FailureReason::iter() {
            assert_eq!(reason.to_value(), reason.name());
        }
    }
}
