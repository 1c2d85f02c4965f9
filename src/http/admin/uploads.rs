//! `/admin/uploads`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use entity::{BrandId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::{TenantQuery, admit};
use crate::caller::{Admin, Caller, Permission};
use crate::engine::Engine;
use crate::http::body::{Body, Nothing};
use crate::http::door::Door;
use crate::http::in_flight::Asker;
use crate::http::list::{self, ListQuery, PageView};
use crate::http::problem::Answer;
use crate::http::query::Query;
use crate::http::views::{AssetView, EventView, SessionView, Time};
use crate::http::{rules, session_of};
use crate::session::{self, Inspection, Stored};
use crate::{storage, tenant};

/// The query parameters of a list: those of `GET /app/uploads`, and the tenant.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AdminListQuery {
    tenant: Option<String>,
    #[validate(custom(function = "rules::states"))]
    status: Option<String>,
    brand_id: Option<BrandId>,
    #[validate(custom(function = "rules::reference"))]
    batch_reference: Option<String>,
    #[validate(custom(function = "rules::reference"))]
    client_reference: Option<String>,
    #[validate(custom(function = "rules::reference"))]
    fingerprint: Option<String>,
    #[validate(custom(function = "rules::reference"))]
    created_by: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
    cursor: Option<SessionId>,
}

/// Lists one tenant's sessions, newest first. An operator must name the tenant; a manager sees their own.
#[utoipa::path(
    get, path = "/admin/uploads", tag = "admin",
    params(
        ("tenant" = Option<String>, Query, description = "Slug or id; an operator must name it."),
        ("status" = Option<String>, Query, description = "States, separated by commas.", pattern = "^(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED)(,(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED))*$"),
        ("brand_id" = Option<uuid::Uuid>, Query),
        ("batch_reference" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("client_reference" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("fingerprint" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("created_by" = Option<String>, Query, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "One page", body = PageView),
        (status = 404, description = "`not-found`: the tenant does not exist"),
    ),
    extensions(("x-permission" = json!([["uploads.manage", "uploads.view"], "operator"]))),
)]
pub(in crate::http) async fn list(
    engine: Data<Engine>,
    door: Data<Door>,
    admin: Admin,
    query: Query<AdminListQuery>,
) -> Answer {
    admit(&engine, &admin, Permission::UploadsView).await?;
    let AdminListQuery {
        tenant,
        status,
        brand_id,
        batch_reference,
        client_reference,
        fingerprint,
        created_by,
        limit,
        cursor,
    } = query.parse()?;
    let query =
        ListQuery { status, brand_id, batch_reference, client_reference, fingerprint, created_by, limit, cursor };
    let caller = tenant::within(&engine, &admin, tenant.as_deref()).await?;
    list::page(engine, &door, Asker::from(&admin), caller, query).await
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
    fn seen_by(self, caller: &Caller) -> Self {
        if caller.may(Permission::Operator) { self } else { Self { bucket: None, ..self } }
    }
}

/// Returns the session with its history, its asset, and what the store holds of it.
#[utoipa::path(
    get, path = "/admin/uploads/{id}", tag = "admin",
    params(
        ("id" = Uuid, Path),
        ("tenant" = Option<String>, Query, description = "Slug or id of the session's tenant; may be left out."),
    ),
    responses((status = 200, description = "The session, whether or not the store answers", body = InspectionView)),
    extensions(("x-permission" = json!([["uploads.manage", "uploads.view"], "operator"]))),
)]
pub(in crate::http) async fn inspect(
    engine: Data<Engine>,
    admin: Admin,
    id: Path<String>,
    query: Query<TenantQuery>,
) -> Answer {
    admit(&engine, &admin, Permission::UploadsView).await?;
    let named = query.parse()?.tenant;
    let id = session_of(&id)?;
    let caller = tenant::within_of(&engine, &admin, named.as_deref(), id).await?;
    let inspection = session::inspect(&engine, &caller, id).await?;
    Ok(HttpResponse::Ok().json(InspectionView::from(inspection).seen_by(&caller)))
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct FailRequest {
    /// The reason, for people; kept in the session's history.
    #[schema(required, nullable = false, min_length = 1, max_length = 500, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    #[validate(required, length(min = 1, max = 500), custom(function = "rules::no_control"))]
    reason_text: Option<String>,
}

/// Ends the session as FAILED, with the reason `operator`. Safe to repeat.
#[utoipa::path(
    post, path = "/admin/uploads/{id}/fail", tag = "admin", request_body = FailRequest,
    params(
        ("id" = Uuid, Path),
        ("tenant" = Option<String>, Query, description = "Slug or id of the session's tenant; may be left out."),
    ),
    responses(
        (status = 200, description = "The session: FAILED, by this call or before", body = SessionView),
        (status = 409, description = "`illegal-transition`"),
    ),
    extensions(("x-permission" = json!([["uploads.manage", "uploads.cancel"], "operator"]))),
)]
pub(in crate::http) async fn fail(
    engine: Data<Engine>,
    admin: Admin,
    id: Path<String>,
    query: Query<TenantQuery>,
    body: Body<FailRequest>,
) -> Answer {
    admit(&engine, &admin, Permission::UploadsCancel).await?;
    let note = body.parse()?.reason_text.unwrap_or_default();
    let named = query.parse()?.tenant;
    let id = session_of(&id)?;
    let caller = tenant::within_of(&engine, &admin, named.as_deref(), id).await?;
    let session = session::fail(&engine, &caller, id, &note).await?;
    Ok(HttpResponse::Ok().json(SessionView::from(session)))
}

/// Cancels the session. Safe to repeat.
#[utoipa::path(
    post, path = "/admin/uploads/{id}/cancel", tag = "admin", request_body = Nothing,
    params(
        ("id" = Uuid, Path),
        ("tenant" = Option<String>, Query, description = "Slug or id of the session's tenant; may be left out."),
    ),
    responses((status = 200, description = "The session: CANCELLED, or in the terminal state that it already had", body = SessionView)),
    extensions(("x-permission" = json!([["uploads.manage", "uploads.cancel"], "operator"]))),
)]
pub(in crate::http) async fn cancel(
    engine: Data<Engine>,
    admin: Admin,
    id: Path<String>,
    query: Query<TenantQuery>,
    body: Body<Nothing>,
) -> Answer {
    admit(&engine, &admin, Permission::UploadsCancel).await?;
    body.parse()?;
    let named = query.parse()?.tenant;
    let id = session_of(&id)?;
    let caller = tenant::within_of(&engine, &admin, named.as_deref(), id).await?;
    let session = session::cancel(&engine, &caller, id).await?;
    Ok(HttpResponse::Ok().json(SessionView::from(session)))
}
