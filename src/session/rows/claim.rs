//! What sessions claim in the store: for the search for orphans, which reads keys and buckets first.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use entity::upload_session::{Column, Entity, Status};
use entity::{SessionId, TenantId, asset};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect, Select,
};

use crate::database::db_error;
use crate::error::Result;

/// What is read of a session whose id comes from a key.
#[derive(Clone, Debug, FromQueryResult)]
pub(in crate::session) struct Claim {
    pub(in crate::session) tenant_id: TenantId,
    pub(in crate::session) id: SessionId,
    pub(in crate::session) status: Status,
    pub(in crate::session) bucket: String,
    pub(in crate::session) multipart_upload_id: Option<String>,
    pub(in crate::session) storage_cleared_at: Option<DateTime<Utc>>,
    /// `None` if there is no asset.
    pub(in crate::session) asset_status: Option<asset::Status>,
}

/// Selects those of the sessions that exist, of all tenants: only for passes over a bucket and for operators. At most 1,000
/// ids.
pub fn claims(ids: &[SessionId]) -> SelectStatement {
    let of = |column: Column| Expr::col((Entity, column));
    let asset = |column: asset::Column| (asset::Entity, column);
    let mut query = Query::select();
    for column in [Column::TenantId, Column::Id, Column::Status, Column::Bucket, Column::MultipartUploadId] {
        query.column((Entity, column));
    }
    query
        .column((Entity, Column::StorageClearedAt))
        .expr_as(Expr::col(asset(asset::Column::Status)), Alias::new("asset_status"))
        .from(Entity)
        .left_join(
            asset::Entity,
            of(Column::TenantId)
                .equals(asset(asset::Column::TenantId))
                .and(of(Column::AssetId).equals(asset(asset::Column::Id))),
        )
        .and_where(of(Column::Id).is_in(ids.iter().copied()))
        .to_owned()
}

/// Runs [`claims`].
pub(in crate::session) async fn find_claims(conn: &impl ConnectionTrait, ids: &[SessionId]) -> Result<Vec<Claim>> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let backend = conn.get_database_backend();
    Claim::find_by_statement(backend.build(&claims(ids))).all(conn).await.map_err(db_error)
}

/// Returns the session's tenant: only for operators, who may know every tenant.
pub(crate) async fn tenant_of(conn: &impl ConnectionTrait, id: SessionId) -> Result<Option<TenantId>> {
    Ok(find_claims(conn, &[id]).await?.pop().map(|claim| claim.tenant_id))
}

/// Returns the buckets of sessions that are not cleared. Takes one index lookup for each bucket, however many sessions there
/// are.
pub(crate) async fn buckets(conn: &impl ConnectionTrait) -> Result<BTreeSet<String>> {
    let mut buckets = BTreeSet::new();
    let mut after = String::new();
    while let Some(bucket) = next_bucket(&after).into_tuple::<String>().one(conn).await.map_err(db_error)? {
        after.clone_from(&bucket);
        buckets.insert(bucket);
    }
    Ok(buckets)
}

pub fn next_bucket(after: &str) -> Select<Entity> {
    Entity::find()
        .select_only()
        .column(Column::Bucket)
        .filter(Column::StorageClearedAt.is_null())
        // The condition of the partial index.
        .filter(Expr::col(Column::Bucket).gt(Expr::Constant("".into())))
        .filter(Column::Bucket.gt(after))
        .order_by_asc(Column::Bucket)
        .limit(1)
}
