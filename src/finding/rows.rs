use chrono::{DateTime, Utc};
use entity::upload_session::Status;
use entity::{AssetId, SessionId, TenantId, asset, upload_event, upload_session};
use sea_orm::sea_query::{Expr, ExprTrait, Func, IntoColumnRef, Order, Query};
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, Select,
};
use serde_json::Value;

use super::{Finding, FindingKind};
use crate::caller::{Brands, Caller};
use crate::database::db_error;
use crate::error::Result;
use crate::storage::Location;

/// Returns up to `limit` findings of one kind, of sessions before `before`.
pub(super) async fn list(
    conn: &impl ConnectionTrait,
    kind: FindingKind,
    caller: Option<&Caller>,
    before: Option<SessionId>,
    limit: u64,
) -> Result<Vec<Finding>> {
    match kind {
        FindingKind::AssetFailed => {
            let query = failed_assets(caller, before, limit).into_model::<FailedAsset>();
            Ok(query.all(conn).await.map_err(db_error)?.into_iter().map(Into::into).collect())
        }
        FindingKind::NotCleared => {
            let query = not_cleared(caller, before, limit).into_model::<NotCleared>();
            Ok(query.all(conn).await.map_err(db_error)?.into_iter().map(Into::into).collect())
        }
    }
}

/// Counts the findings of one kind, over all tenants.
pub(super) async fn count(conn: &impl ConnectionTrait, kind: FindingKind) -> Result<i64> {
    let counted = match kind {
        FindingKind::AssetFailed => count_failed_assets().into_tuple().one(conn).await,
        FindingKind::NotCleared => count_not_cleared().into_tuple().one(conn).await,
    };
    Ok(counted.map_err(db_error)?.unwrap_or_default())
}

#[derive(Debug, FromQueryResult)]
struct FailedAsset {
    tenant_id: TenantId,
    upload_session_id: SessionId,
    id: AssetId,
    bucket: String,
    object_key: String,
    since: DateTime<Utc>,
    failure: String,
}

impl From<FailedAsset> for Finding {
    fn from(asset: FailedAsset) -> Self {
        Self {
            kind: FindingKind::AssetFailed,
            tenant: asset.tenant_id,
            session: asset.upload_session_id,
            asset: Some(asset.id),
            bucket: asset.bucket,
            object_key: asset.object_key,
            since: asset.since,
            cause: asset.failure,
        }
    }
}

/// Selects the FAILED assets, the newest session's first.
pub fn failed_assets(caller: Option<&Caller>, before: Option<SessionId>, limit: u64) -> Select<asset::Entity> {
    use asset::Column;
    let of_asset = |column: Column| (asset::Entity, column);
    let failed_at =
        newest("asset.failed", upload_event::Column::At, of_asset(Column::TenantId), of_asset(Column::UploadSessionId));
    // The event exists unless the rows were tampered with, which the audit reports.
    let since = Func::coalesce([failed_at, Expr::col(of_asset(Column::CreatedAt))]);
    let mut query = asset::Entity::find()
        .select_only()
        .columns([Column::TenantId, Column::UploadSessionId, Column::Id, Column::Bucket, Column::ObjectKey])
        .column(Column::Failure)
        .column_as(Expr::from(since), "since")
        .filter(is_failed())
        .filter(visible(caller, Column::TenantId, Column::BrandId));
    if let Some(before) = before {
        query = query.filter(Column::UploadSessionId.lt(before));
    }
    query.order_by_desc(Column::UploadSessionId).limit(limit)
}

pub fn count_failed_assets() -> Select<asset::Entity> {
    asset::Entity::find().select_only().column_as(asset::Column::TenantId.count(), "findings").filter(is_failed())
}

/// With a constant, as in the conditions of its indexes: neither database would use them for a bound value.
fn is_failed() -> Expr {
    Expr::col((asset::Entity, asset::Column::Status)).eq(Expr::Constant(asset::Status::Failed.to_value().into()))
}

#[derive(Debug, FromQueryResult)]
struct NotCleared {
    tenant_id: TenantId,
    id: SessionId,
    status: Status,
    asset_id: AssetId,
    bucket: String,
    clear_failed_at: DateTime<Utc>,
    details: Option<Value>,
}

impl From<NotCleared> for Finding {
    fn from(session: NotCleared) -> Self {
        let cause = session.details.as_ref().and_then(|details| details["cause"].as_str());
        let Location { bucket, key } = Location::upload(&session.bucket, session.id);
        Self {
            kind: FindingKind::NotCleared,
            tenant: session.tenant_id,
            session: session.id,
            asset: (session.status == Status::Completed).then_some(session.asset_id),
            bucket,
            object_key: key,
            since: session.clear_failed_at,
            cause: cause.unwrap_or("no event says why").to_owned(),
        }
    }
}

/// Selects the sessions that a cleanup could not clear, the newest first.
pub fn not_cleared(caller: Option<&Caller>, before: Option<SessionId>, limit: u64) -> Select<upload_session::Entity> {
    use upload_session::Column;
    let of_session = |column: Column| (upload_session::Entity, column);
    let (tenant, session) = (of_session(Column::TenantId), of_session(Column::Id));
    let details = newest("storage.clear_failed", upload_event::Column::Details, tenant, session);
    let mut query = upload_session::Entity::find()
        .select_only()
        .columns([Column::TenantId, Column::Id, Column::Status, Column::AssetId, Column::Bucket, Column::ClearFailedAt])
        .column_as(details, "details")
        .filter(is_not_cleared())
        .filter(visible(caller, Column::TenantId, Column::BrandId));
    if let Some(before) = before {
        query = query.filter(Column::Id.lt(before));
    }
    query.order_by_desc(Column::Id).limit(limit)
}

pub fn count_not_cleared() -> Select<upload_session::Entity> {
    let tenants = upload_session::Column::TenantId.count();
    upload_session::Entity::find().select_only().column_as(tenants, "findings").filter(is_not_cleared())
}

fn is_not_cleared() -> Condition {
    Condition::all()
        .add(upload_session::Column::ClearFailedAt.is_not_null())
        .add(upload_session::Column::StorageClearedAt.is_null())
}

/// Matches the rows that the caller may see; without a caller, all rows.
fn visible(caller: Option<&Caller>, tenant: impl ColumnTrait, brand: impl ColumnTrait) -> Condition {
    let Some(caller) = caller else { return Condition::all() };
    let own = Condition::all().add(tenant.eq(caller.tenant));
    match &caller.brands {
        Brands::All => own,
        Brands::These(held) => own.add(brand.is_in(held.iter().copied())),
    }
}

/// Selects a column of the newest event with this name, for the session of the outer query. Reads only the end of the
/// history, which is long if the store has refused for months to clear the session.
fn newest(event: &str, column: upload_event::Column, tenant: impl IntoColumnRef, session: impl IntoColumnRef) -> Expr {
    use upload_event::{Column, Entity};
    let of_event = |column: Column| Expr::col((Entity, column));
    let newest = Query::select()
        .column((Entity, column))
        .from(Entity)
        .and_where(of_event(Column::TenantId).eq(Expr::col(tenant)))
        .and_where(of_event(Column::UploadSessionId).eq(Expr::col(session)))
        .and_where(of_event(Column::Event).eq(event))
        .order_by((Entity, Column::Seq), Order::Desc)
        .limit(1)
        .to_owned();
    Expr::SubQuery(None, Box::new(newest.into()))
}
