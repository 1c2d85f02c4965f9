//! The JSON shapes that several handlers share, and the command line.

use chrono::{DateTime, SecondsFormat, Utc};
use entity::upload_session::{FailureReason, Status, UploadType};
use entity::{ActorKind, asset, upload_event};
use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::asset::Asset;
use crate::session::Session;
use crate::storage::Presigned;

/// A time in RFC 3339 format, in UTC, always with six fractional digits.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00.000000Z")]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// The states of an upload session.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = UploadStatus)]
pub(super) enum StatusView {
    Initiating,
    Uploading,
    Completed,
    Failed,
    Cancelled,
}

impl From<Status> for StatusView {
    fn from(status: Status) -> Self {
        match status {
            Status::Initiating => Self::Initiating,
            Status::Uploading => Self::Uploading,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = UploadType)]
pub(super) enum UploadTypeView {
    Direct,
    Multipart,
}

impl From<UploadType> for UploadTypeView {
    fn from(upload_type: UploadType) -> Self {
        match upload_type {
            UploadType::Direct => Self::Direct,
            UploadType::Multipart => Self::Multipart,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FailureReason)]
pub(super) enum FailureReasonView {
    Abandoned,
    Expired,
    StorageError,
    VerificationFailed,
    Operator,
}

impl From<FailureReason> for FailureReasonView {
    fn from(reason: FailureReason) -> Self {
        match reason {
            FailureReason::Abandoned => Self::Abandoned,
            FailureReason::Expired => Self::Expired,
            FailureReason::StorageError => Self::StorageError,
            FailureReason::VerificationFailed => Self::VerificationFailed,
            FailureReason::Operator => Self::Operator,
        }
    }
}

/// The kind of an actor. The name alone does not tell it: a person may have any name.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ActorKind)]
pub(crate) enum ActorKindView {
    /// A tenant's user, named by their token's `sub`.
    User,
    /// An operator, named by their token's `sub`.
    Operator,
    /// A command beside the server; its name is `cli`.
    Command,
    /// The server itself; its name is `system`.
    System,
}

impl From<ActorKind> for ActorKindView {
    fn from(kind: ActorKind) -> Self {
        match kind {
            ActorKind::User => Self::User,
            ActorKind::Operator => Self::Operator,
            ActorKind::Command => Self::Command,
            ActorKind::System => Self::System,
        }
    }
}

/// An upload session in its current state.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = UploadSession)]
pub(crate) struct SessionView {
    upload_session_id: Uuid,
    status: StatusView,
    upload_type: UploadTypeView,
    brand_id: Uuid,
    /// The `sub` of the token that opened the session.
    created_by: String,
    client_reference: Option<String>,
    batch_reference: Option<String>,
    fingerprint: Option<String>,
    file_name: String,
    /// Bytes.
    #[schema(minimum = 0)]
    file_size: i64,
    mime_type: String,
    checksum_sha256: Option<String>,
    #[schema(value_type = Object)]
    metadata: Value,
    /// The store's id of the multipart upload; null for a direct session.
    multipart_upload_id: Option<String>,
    /// Bytes of every part but the last; null for a direct session.
    chunk_size: Option<i64>,
    /// Null for a direct session.
    total_parts: Option<i32>,
    failure_reason: Option<FailureReasonView>,
    /// Null until COMPLETED.
    asset_id: Option<Uuid>,
    /// Counts changes of state, from 1.
    version: i32,
    created_at: Time,
    updated_at: Time,
    last_activity_at: Time,
    expires_at: Time,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        Self {
            upload_session_id: session.id.0,
            status: session.status.into(),
            upload_type: session.upload_type.into(),
            brand_id: session.brand_id.0,
            created_by: session.created_by,
            client_reference: session.client_reference,
            batch_reference: session.batch_reference,
            fingerprint: session.fingerprint,
            file_name: session.file_name,
            file_size: session.file_size,
            mime_type: session.mime_type,
            checksum_sha256: session.checksum_sha256,
            metadata: session.metadata,
            multipart_upload_id: session.multipart_upload_id,
            chunk_size: session.chunk_size,
            total_parts: session.total_parts,
            failure_reason: session.failure_reason.map(Into::into),
            asset_id: (session.status == Status::Completed).then_some(session.asset_id.0),
            version: session.version,
            created_at: Time(session.created_at),
            updated_at: Time(session.updated_at),
            last_activity_at: Time(session.last_activity_at),
            expires_at: Time(session.expires_at),
        }
    }
}

/// Where and how to PUT the bytes of a direct session. All null for a multipart session, and for one that no longer takes
/// bytes.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = DirectUpload)]
pub(super) struct PutView {
    upload_url: Option<String>,
    /// `PUT`.
    upload_method: Option<&'static str>,
    /// Send these headers exactly. `Content-Length` is also required. HTTP clients set it by themselves, but a few leave it
    /// out for an empty file, whose PUT is then refused.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    upload_headers: Option<serde_json::Map<String, Value>>,
    upload_url_expires_at: Option<Time>,
}

impl From<Option<Presigned>> for PutView {
    fn from(put: Option<Presigned>) -> Self {
        let Some(put) = put else { return Self::default() };
        Self {
            upload_headers: Some(put_headers(put.headers)),
            upload_url_expires_at: Some(Time(put.expires_at)),
            upload_url: Some(put.url),
            upload_method: Some("PUT"),
        }
    }
}

/// Returns the headers that the client must send with its PUT.
pub(super) fn put_headers(headers: Vec<(&'static str, String)>) -> serde_json::Map<String, Value> {
    headers.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

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

/// One event of a session's history.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = UploadEvent)]
pub(crate) struct EventView {
    /// Counted from 1, without gaps.
    seq: i32,
    at: Time,
    /// A change of state: `initiate`, `open`, `complete`, `cancel` or `fail`. Of the asset: `asset.ready` or `asset.failed`.
    /// Of the store: `storage.open_failed`, `storage.complete_failed`, `storage.object_unseen`, `storage.copy_failed`,
    /// `storage.discard`, `storage.discard_failed`, `storage.abort`, `storage.abort_failed`, `storage.remove_orphan`,
    /// `storage.remove_orphan_failed`, `storage.clear` or `storage.clear_failed`.
    event: String,
    from: Option<StatusView>,
    to: Option<StatusView>,
    actor: String,
    /// Null in events from before this was recorded.
    actor_kind: Option<ActorKindView>,
    reason: Option<FailureReasonView>,
    #[schema(value_type = Object)]
    details: Value,
}

impl From<upload_event::Model> for EventView {
    fn from(event: upload_event::Model) -> Self {
        Self {
            seq: event.seq,
            at: Time(event.at),
            event: event.event,
            from: event.from_status.map(Into::into),
            to: event.to_status.map(Into::into),
            actor: event.actor,
            actor_kind: event.actor_kind.map(Into::into),
            reason: event.reason.map(Into::into),
            details: event.details,
        }
    }
}
