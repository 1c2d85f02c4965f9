use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Time;
use crate::caller::Admin;
use crate::finding::Finding;

/// A problem between a session's rows and the store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageFinding)]
pub(crate) struct FindingView {
    /// `asset-failed`: the uploaded object was overwritten or lost before its asset was READY, or its copy has another size
    /// or checksum; an operator must decide.
    /// `not-cleared`: the session has ended, and the cleanup could not clear its storage; the next one tries again.
    kind: &'static str,
    tenant_id: Uuid,
    upload_session_id: Uuid,
    /// Null if the session became no asset.
    asset_id: Option<Uuid>,
    /// Null unless an operator asks.
    bucket: Option<String>,
    object_key: String,
    /// When the asset failed, or when the cleanup first failed.
    since: Time,
    /// For people; of a cleanup, the reason of its last failure.
    cause: String,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        Self {
            kind: finding.kind.name(),
            tenant_id: finding.tenant.0,
            upload_session_id: finding.session.0,
            asset_id: finding.asset.map(|asset| asset.0),
            bucket: Some(finding.bucket),
            object_key: finding.object_key,
            since: Time(finding.since),
            cause: finding.cause,
        }
    }
}

impl FindingView {
    /// Only operators may see where the tenant's bytes are stored.
    pub(crate) fn seen_by(self, admin: &Admin) -> Self {
        match admin {
            Admin::Operator(_) => self,
            Admin::Member(_) => Self { bucket: None, ..self },
        }
    }
}
