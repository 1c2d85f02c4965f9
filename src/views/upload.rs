use entity::upload_session::{FailureReason, Status, UploadType};
use entity::{SessionId, upload_event};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ActorKindView, AssetView, Time};
use crate::caller::{Caller, Permission};
use crate::page::Page;
use crate::session::{Inspection, Session, Stored};
use crate::storage::{self, Presigned};

/// The states of an upload session.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = UploadStatus)]
pub(crate) enum StatusView {
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
pub(crate) enum UploadTypeView {
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
pub(crate) enum FailureReasonView {
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
pub(crate) struct PutView {
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
pub(crate) fn put_headers(headers: Vec<(&'static str, String)>) -> serde_json::Map<String, Value> {
    headers.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
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

/// One page of sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadPage)]
pub(crate) struct PageView {
    data: Vec<SessionView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

impl From<Page<Session, SessionId>> for PageView {
    fn from(page: Page<Session, SessionId>) -> Self {
        Self { data: page.items.into_iter().map(Into::into).collect(), next_cursor: page.next.map(|id| id.to_string()) }
    }
}

/// What the store holds under the session's own key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredUpload)]
pub(crate) struct StoredView {
    /// Whether the store has answered. If not, all following members but `error` are null.
    answered: bool,
    error: Option<String>,
    /// The number of parts of the multipart upload.
    parts: Option<u64>,
    /// Bytes of these parts.
    part_bytes: Option<u64>,
    /// Bytes of the object; null if there is none.
    object_bytes: Option<u64>,
}

impl From<Result<Stored, storage::Error>> for StoredView {
    fn from(stored: Result<Stored, storage::Error>) -> Self {
        let (stored, error) = match stored {
            Ok(stored) => (Some(stored), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            answered: error.is_none(),
            error,
            parts: stored.map(|stored| stored.parts),
            part_bytes: stored.map(|stored| stored.part_bytes),
            object_bytes: stored.and_then(|stored| stored.object_bytes),
        }
    }
}

/// A session with all that is known about it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InspectedUpload)]
pub(crate) struct InspectionView {
    tenant_id: Uuid,
    #[serde(flatten)]
    session: SessionView,
    /// Null unless an operator asks.
    bucket: Option<String>,
    /// When it was recorded that nothing is left in the store under the session's own key.
    storage_cleared_at: Option<Time>,
    /// Oldest first.
    events: Vec<EventView>,
    /// Null until COMPLETED, and for a manager without `assets.view`.
    asset: Option<AssetView>,
    store: StoredView,
}

impl From<Inspection> for InspectionView {
    fn from(inspection: Inspection) -> Self {
        let Inspection { session, events, asset, stored } = inspection;
        Self {
            tenant_id: session.tenant_id.0,
            bucket: Some(session.bucket.clone()),
            storage_cleared_at: session.storage_cleared_at.map(Time),
            session: session.into(),
            events: events.into_iter().map(Into::into).collect(),
            asset: asset.map(Into::into),
            store: stored.into(),
        }
    }
}

impl InspectionView {
    /// Only operators may see where the tenant's bytes are stored.
    pub(crate) fn seen_by(self, caller: &Caller) -> Self {
        if caller.may(Permission::Operator) { self } else { Self { bucket: None, ..self } }
    }
}
