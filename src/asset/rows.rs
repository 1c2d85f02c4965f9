use std::collections::HashSet;

use chrono::{DateTime, Utc};
use entity::asset::{self, Entity, Status};
use entity::upload_session;
use entity::{AssetId, SessionId, TenantId};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveEnum, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, JoinType, QueryFilter, QueryOrder,
    QuerySelect, RelationDef, Select, UpdateMany,
};
use serde_json::Value;

use super::Asset;
use crate::database::{Tx, db_error, ids, values};
use crate::error::Result;
use crate::storage::Location;

pub(crate) async fn find(conn: &impl ConnectionTrait, tenant: TenantId, id: AssetId) -> Result<Option<Asset>> {
    Entity::find_by_id((tenant, id)).one(conn).await.map_err(db_error)
}

/// Returns a session and its asset; either may be missing.
pub(super) async fn find_with_session(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    session: SessionId,
) -> Result<Option<(upload_session::Model, Option<Asset>)>> {
    let asset: RelationDef = upload_session::Entity::belongs_to(Entity)
        .from((upload_session::Column::TenantId, upload_session::Column::AssetId))
        .to((asset::Column::TenantId, asset::Column::Id))
        .into();
    let query =
        upload_session::Entity::find_by_id((tenant, session)).select_also(Entity).join(JoinType::LeftJoin, asset);
    Ok(query.all(conn).await.map_err(db_error)?.into_iter().next())
}

/// Inserts the assets of sessions that this transaction has just completed.
pub(crate) async fn insert(tx: &Tx, assets: &[Asset]) -> Result<()> {
    let rows = assets.iter().map(|asset| asset.clone().into_active_model());
    Entity::insert_many(rows).exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}

/// Builds the asset of a completed session, under the id that was reserved for it.
pub(crate) fn asset(session: &upload_session::Model, etag: &str, verified: bool) -> Asset {
    Asset {
        tenant_id: session.tenant_id,
        id: session.asset_id,
        upload_session_id: session.id,
        brand_id: session.brand_id,
        created_by: session.created_by.clone(),
        status: Status::Uploaded,
        title: session.completing_title.clone().unwrap_or_else(|| session.file_name.clone()),
        file_name: session.file_name.clone(),
        file_size: session.file_size,
        mime_type: session.mime_type.clone(),
        bucket: session.bucket.clone(),
        object_key: Location::upload(&session.bucket, session.id).key,
        etag: etag.to_owned(),
        checksum_sha256: session.checksum_sha256.clone(),
        checksum_verified: verified,
        metadata: merged(&session.metadata, session.completing_metadata.as_ref()),
        created_at: session.completed_at.unwrap_or(session.updated_at),
        ready_at: None,
        failure: None,
    }
}

/// Selects the sessions after `after` that were completed before `before` and whose assets are UPLOADED, ordered by id.
pub fn find_uploaded(before: DateTime<Utc>, after: Option<(TenantId, SessionId)>, limit: u64) -> Select<Entity> {
    let mut query = are_uploaded(before);
    if let Some((tenant, session)) = after {
        query = query.filter(by_session().gt(Expr::tuple([Expr::value(tenant), Expr::value(session)])));
    }
    query.order_by_asc(asset::Column::TenantId).order_by_asc(asset::Column::UploadSessionId).limit(limit)
}

/// Runs [`find_uploaded`].
pub(crate) async fn list_uploaded(
    conn: &impl ConnectionTrait,
    before: DateTime<Utc>,
    after: Option<(TenantId, SessionId)>,
    limit: u64,
) -> Result<Vec<(TenantId, SessionId)>> {
    find_uploaded(before, after, limit).into_tuple().all(conn).await.map_err(db_error)
}

/// Returns those of the sessions in `of` that were completed before `before` and whose assets are UPLOADED.
pub(crate) async fn list_uploaded_of(
    conn: &impl ConnectionTrait,
    before: DateTime<Utc>,
    of: &[(TenantId, SessionId)],
) -> Result<Vec<(TenantId, SessionId)>> {
    if of.is_empty() {
        return Ok(vec![]);
    }
    let of = of.iter().map(|(tenant, session)| Expr::tuple([Expr::value(*tenant), Expr::value(*session)]));
    are_uploaded(before).filter(by_session().is_in(of)).into_tuple().all(conn).await.map_err(db_error)
}

/// Has the status as a literal, as in the condition of the partial index.
fn are_uploaded(before: DateTime<Utc>) -> Select<Entity> {
    Entity::find()
        .select_only()
        .columns([asset::Column::TenantId, asset::Column::UploadSessionId])
        .filter(Expr::col(asset::Column::Status).eq(Expr::Constant(Status::Uploaded.to_value().into())))
        .filter(asset::Column::CreatedAt.lt(before))
}

fn by_session() -> Expr {
    Expr::tuple([Expr::col(asset::Column::TenantId), Expr::col(asset::Column::UploadSessionId)])
}

/// Makes UPLOADED assets READY, each with the key that it is served from. Returns the ids of those that were UPLOADED.
pub(super) async fn make_ready(tx: &Tx, assets: &[(&Asset, &str)], now: DateTime<Utc>) -> Result<HashSet<AssetId>> {
    let mut bound = vec![now.into(), Status::Ready.to_value().into(), Status::Uploaded.to_value().into()];
    let copied = assets.iter().map(|(asset, key)| [asset.tenant_id.into(), asset.id.into(), (*key).into()]);
    let copied = values(copied, &mut bound);
    let sql = format!(
        "UPDATE asset SET ready_at = $1, status = $2, object_key = copied.column3
        FROM ({copied}) AS copied
        WHERE asset.tenant_id = copied.column1 AND asset.id = copied.column2 AND asset.status = $3
        RETURNING asset.id"
    );
    ids(tx, sql, bound).await
}

/// Makes an UPLOADED asset FAILED, with the reason; `None` if it is no longer UPLOADED.
pub(super) async fn make_failed(tx: &Tx, asset: &Asset, failure: &str) -> Result<Option<Asset>> {
    let update = uploaded(asset)
        .col_expr(asset::Column::Status, Expr::value(Status::Failed.to_value()))
        .col_expr(asset::Column::Failure, Expr::value(failure));
    Ok(update.exec_with_returning(tx.conn()).await.map_err(db_error)?.into_iter().next())
}

fn uploaded(asset: &Asset) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(asset::Column::TenantId.eq(asset.tenant_id))
        .filter(asset::Column::Id.eq(asset.id))
        .filter(asset::Column::Status.eq(Status::Uploaded))
}

/// Returns the session's metadata. Members given at completion replace those of the same name.
fn merged(base: &Value, over: Option<&Value>) -> Value {
    let mut merged = base.clone();
    if let (Value::Object(members), Some(Value::Object(newer))) = (&mut merged, over) {
        members.extend(newer.clone());
    }
    merged
}
