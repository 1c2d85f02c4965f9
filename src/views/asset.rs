use entity::asset;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Time;
use crate::asset::Asset;

/// The asset of a completed session.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Asset)]
pub(crate) struct AssetView {
    asset_id: Uuid,
    upload_session_id: Uuid,
    brand_id: Uuid,
    created_by: String,
    status: AssetStatusView,
    title: String,
    file_name: String,
    /// Bytes.
    file_size: i64,
    mime_type: String,
    /// The store's ETag, without quotes.
    etag: String,
    checksum_sha256: Option<String>,
    /// Whether the store itself confirmed `checksum_sha256`, by returning the object's SHA-256.
    checksum_verified: bool,
    #[schema(value_type = Object)]
    metadata: Value,
    created_at: Time,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = AssetStatus)]
enum AssetStatusView {
    /// The object is complete, and is still to be copied to where it is served from.
    Uploaded,
    /// The asset can be downloaded.
    Ready,
    /// The stored object was overwritten or lost after completion, or its copy is wrong; an operator decides.
    Failed,
}

impl From<Asset> for AssetView {
    fn from(asset: Asset) -> Self {
        Self {
            asset_id: asset.id.0,
            upload_session_id: asset.upload_session_id.0,
            brand_id: asset.brand_id.0,
            created_by: asset.created_by,
            status: match asset.status {
                asset::Status::Uploaded => AssetStatusView::Uploaded,
                asset::Status::Ready => AssetStatusView::Ready,
                asset::Status::Failed => AssetStatusView::Failed,
            },
            title: asset.title,
            file_name: asset.file_name,
            file_size: asset.file_size,
            mime_type: asset.mime_type,
            etag: asset.etag,
            checksum_sha256: asset.checksum_sha256,
            checksum_verified: asset.checksum_verified,
            metadata: asset.metadata,
            created_at: Time(asset.created_at),
        }
    }
}
