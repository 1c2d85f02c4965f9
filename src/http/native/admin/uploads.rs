//! `/admin/uploads`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use entity::{BrandId, SessionId};
use serde::Deserialize;
use utoipa::ToSchema;
use validator::Validate;

use super::{TenantQuery, admit};
use crate::caller::{Admin, Permission};
use crate::engine::Engine;
use crate::http::body::{Body, Nothing};
use crate::http::door::Door;
use crate::http::in_flight::ShareOwner;
use crate::http::native::uploads::list::{self, ListQuery};
use crate::http::path::session_of;
use crate::http::problem::{Answer, Problem};
use crate::http::query::Query;
use crate::http::rules::{self, required, typed};
use crate::input::{Reason, Reference, Statuses};
use crate::views::{InspectionView, PageView, SessionView};
use crate::{session, tenant};

/// The query parameters of a list: those of `GET /app/uploads`, and the tenant.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminListQuery {
    tenant: Option<String>,
    #[validate(custom(function = "rules::text::<Statuses>"))]
    status: Option<String>,
    brand_id: Option<BrandId>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    batch_reference: Option<String>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    client_reference: Option<String>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    fingerprint: Option<String>,
    #[validate(custom(function = "rules::text::<Reference>"))]
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
        ("status" = Option<String>, Query, description = "States, separated by commas.", format = "statuses"),
        ("brand_id" = Option<uuid::Uuid>, Query),
        ("batch_reference" = Option<String>, Query, format = "reference"),
        ("client_reference" = Option<String>, Query, format = "reference"),
        ("fingerprint" = Option<String>, Query, format = "reference"),
        ("created_by" = Option<String>, Query, format = "reference"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "One page", body = PageView),
        (status = 404, description = "`not-found`: the tenant does not exist"),
    ),
    extensions(("x-permission" = json!([["uploads.manage", "uploads.view"], "operator"]))),
)]
pub(crate) async fn list(engine: Data<Engine>, door: Data<Door>, admin: Admin, query: Query<AdminListQuery>) -> Answer {
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
    list::page(engine, &door, ShareOwner::from(&admin), caller, query).await
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
pub(crate) async fn inspect(engine: Data<Engine>, admin: Admin, id: Path<String>, query: Query<TenantQuery>) -> Answer {
    admit(&engine, &admin, Permission::UploadsView).await?;
    let named = query.parse()?.tenant;
    let id = session_of(&id)?;
    let caller = session::within(&engine, &admin, named.as_deref(), id).await?;
    let inspection = session::inspect(&engine, &caller, id).await?;
    Ok(HttpResponse::Ok().json(InspectionView::from(inspection).seen_by(&caller)))
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailRequest {
    /// The reason, for people; kept in the session's history.
    #[schema(required, nullable = false, format = "reason")]
    #[validate(required, custom(function = "rules::text::<Reason>"))]
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
pub(crate) async fn fail(
    engine: Data<Engine>,
    admin: Admin,
    id: Path<String>,
    query: Query<TenantQuery>,
    body: Body<FailRequest>,
) -> Answer {
    admit(&engine, &admin, Permission::UploadsCancel).await?;
    let reason = typed("/reason_text", body.parse()?.reason_text).and_then(|reason| required("/reason_text", reason));
    let reason: Reason = reason.map_err(Problem::invalid)?;
    let named = query.parse()?.tenant;
    let id = session_of(&id)?;
    let caller = session::within(&engine, &admin, named.as_deref(), id).await?;
    let session = session::fail(&engine, &caller, id, &reason).await?;
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
pub(crate) async fn cancel(
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
    let caller = session::within(&engine, &admin, named.as_deref(), id).await?;
    let session = session::cancel(&engine, &caller, id).await?;
    Ok(HttpResponse::Ok().json(SessionView::from(session)))
}
