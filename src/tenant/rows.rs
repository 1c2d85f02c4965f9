use chrono::{DateTime, Utc};
use entity::{BrandId, TenantId, brand, tenant};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::caller::Brands;
use crate::database::{Tx, db_error};
use crate::engine::Engine;
use crate::error::Result;

/// The most brands that one answer lists.
const BRANDS_MAX: u64 = 1_000;

pub(crate) async fn find(conn: &impl ConnectionTrait, id: TenantId) -> Result<Option<tenant::Model>> {
    tenant::Entity::find_by_id(id).one(conn).await.map_err(db_error)
}

/// The tenant that people call `slug`.
pub async fn by_slug(engine: &Engine, slug: &str) -> Result<Option<tenant::Model>> {
    find_by_slug(engine.db.conn(), slug).await
}

pub(super) async fn find_by_slug(conn: &impl ConnectionTrait, slug: &str) -> Result<Option<tenant::Model>> {
    tenant::Entity::find().filter(tenant::Column::Slug.eq(slug)).one(conn).await.map_err(db_error)
}

/// The buckets that tenants have of their own, for the dedicated strategy.
pub async fn buckets(engine: &Engine) -> Result<Vec<String>> {
    let query = tenant::Entity::find().select_only().column(tenant::Column::Bucket).distinct();
    let buckets = query.filter(tenant::Column::Bucket.is_not_null()).into_tuple().all(engine.db.conn()).await;
    buckets.map_err(db_error)
}

pub(super) async fn find_brand(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    id: BrandId,
) -> Result<Option<brand::Model>> {
    brand::Entity::find_by_id((tenant, id)).one(conn).await.map_err(db_error)
}

/// The tenant's brands that are held, by slug.
pub(super) async fn find_brands(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    held: &Brands,
) -> Result<Vec<brand::Model>> {
    let mut query = brand::Entity::find().filter(brand::Column::TenantId.eq(tenant));
    if let Brands::These(ids) = held {
        query = query.filter(brand::Column::Id.is_in(ids.iter().copied()));
    }
    query.order_by_asc(brand::Column::Slug).limit(BRANDS_MAX).all(conn).await.map_err(db_error)
}

/// Inserts the tenant unless its slug is there already.
pub(super) async fn insert(tx: &Tx, slug: &str, bucket: Option<&str>, now: DateTime<Utc>) -> Result<()> {
    let row = tenant::ActiveModel {
        id: Set(TenantId::new()),
        slug: Set(slug.to_owned()),
        bucket: Set(bucket.map(str::to_owned)),
        created_at: Set(now),
    };
    tenant::Entity::insert(row)
        .on_conflict(OnConflict::column(tenant::Column::Slug).do_nothing().to_owned())
        .exec_without_returning(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}

/// Names the tenant's own bucket.
pub(super) async fn set_bucket(tx: &Tx, id: TenantId, bucket: Option<&str>) -> Result<()> {
    tenant::Entity::update_many()
        .col_expr(tenant::Column::Bucket, Expr::value(bucket.map(str::to_owned)))
        .filter(tenant::Column::Id.eq(id))
        .exec(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}

/// Inserts the brand unless the tenant has its slug already.
pub(super) async fn insert_brand(tx: &Tx, tenant: TenantId, slug: &str, now: DateTime<Utc>) -> Result<()> {
    let row = brand::ActiveModel {
        tenant_id: Set(tenant),
        id: Set(BrandId::new()),
        slug: Set(slug.to_owned()),
        created_at: Set(now),
    };
    brand::Entity::insert(row)
        .on_conflict(OnConflict::columns([brand::Column::TenantId, brand::Column::Slug]).do_nothing().to_owned())
        .exec_without_returning(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}
