use chrono::{DateTime, Utc};
use entity::{BrandId, TenantId, brand, tenant, tenant_usage};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, OnConflict, Query};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect,
};

use crate::caller::Brands;
use crate::database::{Tx, db_error};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// The most brands that one answer lists.
const BRANDS_MAX: u64 = 1_000;
/// Rows over which a tenant's usage is spread. A row is locked until its transaction commits, so this is about how many
/// sessions of one tenant can be opened or ended at the same instant.
const USAGE_STRIPES: i32 = 16;

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
        suspended_at: Set(None),
        quota_bytes: Set(None),
        quota_live_sessions: Set(None),
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

/// What a tenant holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromQueryResult)]
pub struct Usage {
    /// Sessions that are INITIATING or UPLOADING.
    pub live_sessions: i64,
    /// Of live sessions, of assets, and of FAILED and CANCELLED sessions whose storage is not cleared yet.
    pub bytes: i64,
}

pub(crate) async fn usage(conn: &impl ConnectionTrait, tenant: TenantId) -> Result<Usage> {
    let sum =
        |column: tenant_usage::Column| Expr::expr(Expr::col(column).sum()).cast_as(Alias::new("bigint")).if_null(0_i64);
    let query = tenant_usage::Entity::find()
        .select_only()
        .column_as(sum(tenant_usage::Column::LiveSessions), "live_sessions")
        .column_as(sum(tenant_usage::Column::Bytes), "bytes")
        .filter(tenant_usage::Column::TenantId.eq(tenant));
    Ok(query.into_model::<Usage>().one(conn).await.map_err(db_error)?.unwrap_or_default())
}

/// Counts a new session in, in the transaction that inserts it.
///
/// Under a quota the tenant's row is locked until the commit, so that sessions which are opened at once see each other;
/// without one nobody waits.
///
/// # Errors
/// [`Error::TenantSuspended`], [`Error::QuotaExceeded`]: nothing was counted, and the transaction must not be committed.
pub(crate) async fn reserve(tx: &Tx, id: TenantId, bytes: i64) -> Result<()> {
    if add_where_free(tx, id, bytes).await? {
        return Ok(());
    }
    let query = tenant::Entity::find_by_id(id).lock_exclusive();
    let tenant = query.one(tx.conn()).await.map_err(db_error)?.ok_or(Error::NotFound)?;
    if tenant.suspended_at.is_some() {
        return Err(Error::TenantSuspended);
    }
    let usage = usage(tx.conn(), id).await?;
    if let Some(quota) = tenant.quota_live_sessions.filter(|quota| usage.live_sessions >= *quota) {
        return Err(Error::QuotaExceeded(format!("the tenant has {} of {quota} live sessions", usage.live_sessions)));
    }
    if let Some(quota) = tenant.quota_bytes.filter(|quota| usage.bytes.saturating_add(bytes) > *quota) {
        let used = usage.bytes;
        return Err(Error::QuotaExceeded(format!(
            "the tenant holds {used} of {quota} bytes, and the file has {bytes}"
        )));
    }
    settle(tx, id, 1, bytes).await
}

/// Adds to what the tenant holds, in the transaction that changes it. Less than nothing takes away.
pub(crate) async fn settle(tx: &Tx, id: TenantId, live_sessions: i64, bytes: i64) -> Result<()> {
    let row = tenant_usage::ActiveModel {
        tenant_id: Set(id),
        stripe: Set(fastrand::i32(..USAGE_STRIPES)),
        live_sessions: Set(live_sessions),
        bytes: Set(bytes),
    };
    let insert = tenant_usage::Entity::insert(row).on_conflict(adding());
    insert.exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}

/// Counts a session in where the tenant is neither suspended nor under a quota, which is most of the time: one statement.
async fn add_where_free(tx: &Tx, id: TenantId, bytes: i64) -> Result<bool> {
    let of_tenant = Query::select()
        .column(tenant::Column::Id)
        .expr(Expr::value(fastrand::i32(..USAGE_STRIPES)))
        .expr(Expr::value(1_i64))
        .expr(Expr::value(bytes))
        .from(tenant::Entity)
        .and_where(tenant::Column::Id.eq(id))
        .and_where(tenant::Column::SuspendedAt.is_null())
        .and_where(tenant::Column::QuotaBytes.is_null())
        .and_where(tenant::Column::QuotaLiveSessions.is_null())
        .to_owned();
    let insert = Query::insert()
        .into_table(tenant_usage::Entity)
        .columns([
            tenant_usage::Column::TenantId,
            tenant_usage::Column::Stripe,
            tenant_usage::Column::LiveSessions,
            tenant_usage::Column::Bytes,
        ])
        .select_from(of_tenant)
        .expect("as many values as columns")
        .on_conflict(adding())
        .to_owned();
    Ok(tx.conn().execute(&insert).await.map_err(db_error)?.rows_affected() > 0)
}

fn adding() -> OnConflict {
    use tenant_usage::Column::{Bytes, LiveSessions, Stripe, TenantId};
    let sum = |column: tenant_usage::Column| {
        Expr::col((tenant_usage::Entity, column)).add(Expr::col((Alias::new("excluded"), column)))
    };
    OnConflict::columns([TenantId, Stripe]).value(LiveSessions, sum(LiveSessions)).value(Bytes, sum(Bytes)).to_owned()
}
