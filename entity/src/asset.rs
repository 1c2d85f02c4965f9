use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::{AssetId, BrandId, SessionId, TenantId};

/// How far an asset has moved out of the quarantine prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Status {
    /// The object is complete, and still under the session's temporary key.
    #[sea_orm(string_value = "UPLOADED")]
    Uploaded,
    /// The object has been copied to the asset's own key, from which it is served.
    #[sea_orm(string_value = "READY")]
    Ready,
    /// The completed object is gone or was replaced, or its copy differs from it; an operator decides.
    #[sea_orm(string_value = "FAILED")]
    Failed,
}

impl Status {
    /// The name on the wire and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uploaded => "UPLOADED",
            Self::Ready => "READY",
            Self::Failed => "FAILED",
        }
    }
}

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "asset")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: TenantId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AssetId,
    /// Unique per tenant: a session becomes one asset at most.
    pub upload_session_id: SessionId,
    pub brand_id: BrandId,
    pub created_by: String,
    pub status: Status,
    pub title: String,
    pub file_name: String,
    pub file_size: i64,
    pub mime_type: String,
    pub bucket: String,
    pub object_key: String,
    /// The upload's ETag as reported by the store, without quotes.
    pub etag: String,
    pub checksum_sha256: Option<String>,
    /// Whether the store has verified `checksum_sha256` against the object's bytes.
    pub checksum_verified: bool,
    /// A JSON object.
    pub metadata: Json,
    pub created_at: DateTime<Utc>,
    pub ready_at: Option<DateTime<Utc>>,
    /// Why the asset is FAILED, as text for people.
    pub failure: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}

#[cfg(test)]
mod tests {
    use sea_orm::Iterable as _;

    use super::*;

    #[test]
    fn names_are_those_that_the_database_has() {
        for status in Status::iter() {
            assert_eq!(status.to_value(), status.name());
        }
    }
}
