use std::collections::HashMap;
use std::ops::Range;

use chrono::{DateTime, Utc};
use entity::upload_session::{self, Status};
use entity::{BrandId, TenantId, asset, brand, tenant, tenant_usage};
use sea_orm::sea_query::{
    Alias, Condition, Expr, ExprTrait, InsertStatement, IntoColumnRef, LockType, OnConflict, Query, SelectStatement,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, QueryTrait as _, Select,
};

use crate::caller::Brands;
use crate::database::{Tx, db_error};
use crate::engine::Engine;
use crate::error::{Error, Quota, Result};

/// The maximum number of brands that one answer lists.
const BRANDS_MAX: u64 = 1_000;
/// The number of rows over which a tenant's usage is spread. A row is locked until its transaction commits, so this is about
/// how many sessions of one tenant can be opened or ended at the same instant. A larger number would need a migration that
/// adds the missing rows of tenants with limits.
const USAGE_STRIPES: i32 = 16;

pub(crate) async fn find(conn: &impl ConnectionTrait, id: TenantId) -> Result<Option<tenant::Model>> {
    tenant::Entity::find_by_id(id).one(conn).await.map_err(db_error)
}

/// Returns the tenant with this slug.
pub(super) async fn find_by_slug(conn: &impl ConnectionTrait, slug: &str) -> Result<Option<tenant::Model>> {
    tenant::Entity::find().filter(tenant::Column::Slug.eq(slug)).one(conn).await.map_err(db_error)
}

/// Returns the tenants' own buckets, for the `dedicated` strategy.
pub async fn buckets(engine: &Engine) -> Result<Vec<String>> {
    let query = tenant::Entity::find().select_only().column(tenant::Column::Bucket).distinct();
    let buckets = query.filter(tenant::Column::Bucket.is_not_null()).into_tuple().all(engine.db.search_conn()).await;
    buckets.map_err(db_error)
}

pub(super) async fn find_brand(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    id: BrandId,
) -> Result<Option<brand::Model>> {
    brand::Entity::find_by_id((tenant, id)).one(conn).await.map_err(db_error)
}

/// Returns the tenant's brands that are in `held`, ordered by slug; at most [`BRANDS_MAX`].
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

/// Inserts the tenant unless its slug exists already; `true` if this call inserted it.
pub(super) async fn insert(tx: &Tx, slug: &str, bucket: Option<&str>, now: DateTime<Utc>) -> Result<bool> {
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
        .map(|inserted| inserted > 0)
        .map_err(db_error)
}

/// Sets the bucket of a tenant that has none of its own; `false` if it has one.
pub(super) async fn set_bucket(tx: &Tx, id: TenantId, bucket: &str) -> Result<bool> {
    let update = tenant::Entity::update_many()
        .col_expr(tenant::Column::Bucket, Expr::value(bucket))
        .filter(tenant::Column::Id.eq(id))
        .filter(tenant::Column::Bucket.is_null());
    Ok(update.exec(tx.conn()).await.map_err(db_error)?.rows_affected > 0)
}

/// Inserts the brand; `None` if the tenant already has a brand with this slug.
pub(super) async fn insert_brand(tx: &Tx, tenant: TenantId, slug: &str, now: DateTime<Utc>) -> Result<Option<BrandId>> {
    let id = BrandId::new();
    let row =
        brand::ActiveModel { tenant_id: Set(tenant), id: Set(id), slug: Set(slug.to_owned()), created_at: Set(now) };
    brand::Entity::insert(row)
        .on_conflict(OnConflict::columns([brand::Column::TenantId, brand::Column::Slug]).do_nothing().to_owned())
        .exec_without_returning(tx.conn())
        .await
        .map(|inserted| (inserted > 0).then_some(id))
        .map_err(db_error)
}

/// A tenant's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sessions that are INITIATING or UPLOADING.
    pub live_sessions: i64,
    /// Bytes of live sessions, of assets, and of FAILED and CANCELLED sessions whose storage is not cleared yet; at most
    /// `i64::MAX`.
    pub bytes: i64,
}

pub(crate) async fn usage(conn: &impl ConnectionTrait, tenant: TenantId) -> Result<Usage> {
    let query = summing().filter(tenant_usage::Column::TenantId.eq(tenant));
    let summed = query.into_model::<Summed>().one(conn).await.map_err(db_error)?;
    Ok(summed.map_or_else(Usage::default, Summed::usage))
}

#[derive(Clone, Copy, Debug, FromQueryResult)]
struct Summed {
    live_sessions: i64,
    bytes_upper: i64,
    bytes_lower: i64,
}

impl Summed {
    fn usage(self) -> Usage {
        Usage { live_sessions: self.live_sessions, bytes: total(self.bytes_upper, self.bytes_lower) }
    }
}

fn summing() -> Select<tenant_usage::Entity> {
    let [upper, lower] = halves(tenant_usage::Column::Bytes);
    tenant_usage::Entity::find()
        .select_only()
        .column_as(sum(Expr::col(tenant_usage::Column::LiveSessions)), "live_sessions")
        .column_as(upper, "bytes_upper")
        .column_as(lower, "bytes_lower")
}

fn sum(of: Expr) -> Expr {
    Expr::expr(of.sum()).cast_as(Alias::new("bigint")).if_null(0_i64)
}

/// Returns a sum of bytes as two sums, of the upper and of the lower 32 bits. A single sum of more than `i64::MAX` would
/// fail on both databases, and clients choose the sizes. [`total`] combines the two.
pub(crate) fn halves(bytes: impl IntoColumnRef + Clone) -> [Expr; 2] {
    [sum(Expr::col(bytes.clone()).right_shift(32)), sum(Expr::col(bytes).bit_and(0xffff_ffff_i64))]
}

/// Returns `upper` * 2^32 + `lower`, clamped to the range of `i64`.
pub(crate) fn total(upper: i64, lower: i64) -> i64 {
    clamped((i128::from(upper) << 32) + i128::from(lower))
}

/// Clamps the number to the range of `i64`.
pub(crate) fn clamped(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// Adds new sessions to the tenant's usage, in the transaction that inserts them.
///
/// If the tenant has a quota, its row is locked until the commit, so that concurrent calls see each other's sessions.
/// Without a quota, no call waits for this lock.
///
/// # Errors
/// [`Error::TenantSuspended`], [`Error::QuotaExceeded`]: nothing was added, and the transaction must not be committed.
pub(crate) async fn reserve(tx: &Tx, id: TenantId, sessions: i64, bytes: i64) -> Result<()> {
    let stripe = any_stripe();
    if add_where_free(tx, id, stripe, sessions, bytes).await? {
        return Ok(());
    }
    // Lock order: the share first, the tenant second. Not FOR UPDATE, because the foreign key checks of other
    // transactions would wait for it.
    let query = tenant::Entity::find_by_id(id).lock(LockType::NoKeyUpdate);
    let tenant = query.one(tx.conn()).await.map_err(db_error)?.ok_or(Error::NotFound)?;
    if tenant.suspended_at.is_some() {
        return Err(Error::TenantSuspended);
    }
    let usage = usage(tx.conn(), id).await?;
    if let Some(quota) =
        tenant.quota_live_sessions.filter(|quota| usage.live_sessions.saturating_add(sessions) > *quota)
    {
        return Err(Error::QuotaExceeded {
            of: Quota::LiveSessions,
            limit: Some(quota),
            held: usage.live_sessions,
            wanted: sessions,
        });
    }
    if let Some(quota) = tenant.quota_bytes.filter(|quota| usage.bytes.saturating_add(bytes) > *quota) {
        let of = Quota::Bytes;
        return Err(Error::QuotaExceeded { of, limit: Some(quota), held: usage.bytes, wanted: bytes });
    }
    match add(tx, share(id, stripe, sessions, bytes), adding().action_and_where(has_room(bytes)).to_owned()).await? {
        0 => Err(Error::QuotaExceeded { of: Quota::Bytes, limit: None, held: usage.bytes, wanted: bytes }),
        _ => Ok(()),
    }
}

/// Adds to the tenant's usage, in the transaction that changes it. Negative numbers subtract.
pub(crate) async fn adjust_usage(tx: &Tx, id: TenantId, live_sessions: i64, bytes: i64) -> Result<()> {
    add(tx, share(id, any_stripe(), live_sessions, bytes), adding()).await.map(drop)
}

/// Adds sessions by one statement if the tenant is neither suspended nor under a quota, the most common case. `false` if
/// nothing was added.
///
/// The share row decides, as it is once locked, and not the tenant row in the statement's snapshot. A change of limits
/// writes to every share: it waits for all sessions that were added before it, and stops all later ones.
async fn add_where_free(tx: &Tx, id: TenantId, stripe: i32, sessions: i64, bytes: i64) -> Result<bool> {
    Ok(add(tx, share(id, stripe, sessions, bytes), adding_where_free(bytes)).await? > 0)
}

fn adding_where_free(bytes: i64) -> OnConflict {
    let free = Expr::col((tenant_usage::Entity, tenant_usage::Column::Limited)).eq(false);
    adding().action_and_where(free).action_and_where(has_room(bytes)).to_owned()
}

/// Builds the statement of [`add_where_free`] as a part of a larger one, for PostgreSQL. It returns a row only if the
/// sessions were added.
pub(crate) fn reserving(id: TenantId, sessions: i64, bytes: i64) -> InsertStatement {
    let insert = tenant_usage::Entity::insert(share(id, any_stripe(), sessions, bytes));
    let mut insert = insert.on_conflict(adding_where_free(bytes)).into_query();
    insert.returning_col(tenant_usage::Column::TenantId).to_owned()
}

/// Whether the share can count `bytes` more without an overflow.
fn has_room(bytes: i64) -> Expr {
    Expr::col((tenant_usage::Entity, tenant_usage::Column::Bytes)).lte(i64::MAX - Ord::max(bytes, 0))
}

async fn add(tx: &Tx, share: tenant_usage::ActiveModel, adding: OnConflict) -> Result<u64> {
    let insert = tenant_usage::Entity::insert(share).on_conflict(adding);
    insert.exec_without_returning(tx.conn()).await.map_err(db_error)
}

/// The new row of a share, for a tenant without limits. A tenant with limits has all its rows, so this only updates one.
fn share(id: TenantId, stripe: i32, live_sessions: i64, bytes: i64) -> tenant_usage::ActiveModel {
    tenant_usage::ActiveModel {
        tenant_id: Set(id),
        stripe: Set(stripe),
        live_sessions: Set(live_sessions),
        bytes: Set(bytes),
        limited: Set(false),
    }
}

fn any_stripe() -> i32 {
    fastrand::i32(0..USAGE_STRIPES)
}

fn adding() -> OnConflict {
    use tenant_usage::Column::{Bytes, LiveSessions};
    let sum = |column: tenant_usage::Column| {
        Expr::col((tenant_usage::Entity, column)).add(Expr::col((Alias::new("excluded"), column)))
    };
    on_share().value(LiveSessions, sum(LiveSessions)).value(Bytes, sum(Bytes)).to_owned()
}

fn on_share() -> OnConflict {
    OnConflict::columns([tenant_usage::Column::TenantId, tenant_usage::Column::Stripe])
}

/// The first half of a change of limits: marks and locks every share of the tenant, and then locks the tenant's row.
pub(super) async fn lock(tx: &Tx, id: TenantId) -> Result<tenant::Model> {
    let limited = |stripe| tenant_usage::ActiveModel { limited: Set(true), ..share(id, stripe, 0, 0) };
    let marking = on_share().update_column(tenant_usage::Column::Limited).to_owned();
    let insert = tenant_usage::Entity::insert_many((0..USAGE_STRIPES).map(limited)).on_conflict(marking);
    insert.exec_without_returning(tx.conn()).await.map_err(db_error)?;
    let query = tenant::Entity::find_by_id(id).lock(LockType::NoKeyUpdate);
    query.one(tx.conn()).await.map_err(db_error)?.ok_or(Error::NotFound)
}

/// The second half: stores the limits. After the commit, every session was either added before the change or is checked
/// against it.
pub(super) async fn set_limits(tx: &Tx, tenant: &tenant::Model) -> Result<()> {
    use tenant::Column::{Id, QuotaBytes, QuotaLiveSessions, SuspendedAt};
    tenant::Entity::update_many()
        .col_expr(SuspendedAt, Expr::value(tenant.suspended_at))
        .col_expr(QuotaBytes, Expr::value(tenant.quota_bytes))
        .col_expr(QuotaLiveSessions, Expr::value(tenant.quota_live_sessions))
        .filter(Id.eq(tenant.id))
        .exec(tx.conn())
        .await
        .map_err(db_error)?;

    if is_limited(tenant) {
        return Ok(()); // `lock` has marked the shares
    }
    tenant_usage::Entity::update_many()
        .col_expr(tenant_usage::Column::Limited, Expr::value(false))
        .filter(tenant_usage::Column::TenantId.eq(tenant.id))
        .exec(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}

/// What is counted of a tenant's uploads for each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Opened,
    Completed,
    Failed,
    Cancelled,
}

/// The count of one day that has any; for completed uploads, their bytes too.
#[derive(Clone, Debug, FromQueryResult)]
pub struct DayCount {
    /// `2026-01-31`
    pub day: String,
    pub uploads: i64,
    bytes_upper: i64,
    bytes_lower: i64,
}

impl DayCount {
    /// At most `i64::MAX`.
    pub fn bytes(&self) -> i64 {
        total(self.bytes_upper, self.bytes_lower)
    }
}

/// Counts uploads by UTC day. Completed uploads are counted by their assets, which stay when old sessions are deleted.
pub fn count_by_day(
    backend: DbBackend,
    tenant: TenantId,
    count: Count,
    span: &Range<DateTime<Utc>>,
) -> SelectStatement {
    use upload_session::Column as Session;
    let within = |at: Expr| Condition::all().add(at.clone().gte(span.start)).add(at.lt(span.end));
    let of_sessions = |at: Session, status: Option<Status>| {
        let mut query = Query::select();
        query
            .expr_as(day_of(backend, Expr::col(at)), "day")
            .expr_as(Expr::cust("count(*)"), "uploads")
            .expr_as(Expr::cust("CAST(0 AS bigint)"), "bytes_upper")
            .expr_as(Expr::cust("CAST(0 AS bigint)"), "bytes_lower")
            .from(upload_session::Entity)
            .and_where(Session::TenantId.eq(tenant))
            .cond_where(within(Expr::col(at)));
        if let Some(status) = status {
            // Follows from the time; named because it is the condition of the partial index.
            query.and_where(Session::Status.eq(status));
        }
        query.to_owned()
    };
    let mut query = match count {
        Count::Opened => of_sessions(Session::CreatedAt, None),
        Count::Failed => of_sessions(Session::FailedAt, Some(Status::Failed)),
        Count::Cancelled => of_sessions(Session::CancelledAt, Some(Status::Cancelled)),
        Count::Completed => {
            let at = asset::Column::CreatedAt;
            let [upper, lower] = halves(asset::Column::FileSize);
            Query::select()
                .expr_as(day_of(backend, Expr::col(at)), "day")
                .expr_as(Expr::cust("count(*)"), "uploads")
                .expr_as(upper, "bytes_upper")
                .expr_as(lower, "bytes_lower")
                .from(asset::Entity)
                .and_where(asset::Column::TenantId.eq(tenant))
                .cond_where(within(Expr::col(at)))
                .to_owned()
        }
    };
    query.group_by_columns(["day"]).to_owned()
}

/// The UTC day of a time. SQLite stores times as text that begins with the day.
fn day_of(backend: DbBackend, at: Expr) -> Expr {
    match backend {
        DbBackend::Postgres => Expr::cust_with_exprs("to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD')", [at]),
        _ => Expr::cust_with_exprs("substr(?, 1, 10)", [at]),
    }
}

/// Runs [`count_by_day`].
pub(super) async fn counts(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    count: Count,
    span: &Range<DateTime<Utc>>,
) -> Result<Vec<DayCount>> {
    let backend = conn.get_database_backend();
    let statement = backend.build(&count_by_day(backend, tenant, count, span));
    DayCount::find_by_statement(statement).all(conn).await.map_err(db_error)
}

/// Returns up to `limit` tenants after the slug `after`, ordered by slug.
pub(super) async fn page(conn: &impl ConnectionTrait, after: Option<&str>, limit: u64) -> Result<Vec<tenant::Model>> {
    let mut query = tenant::Entity::find();
    if let Some(after) = after {
        query = query.filter(tenant::Column::Slug.gt(after));
    }
    query.order_by_asc(tenant::Column::Slug).limit(limit).all(conn).await.map_err(db_error)
}

/// Returns up to `limit` tenants after the id `after`, ordered by id.
pub(crate) async fn after(
    conn: &impl ConnectionTrait,
    after: Option<TenantId>,
    limit: u64,
) -> Result<Vec<tenant::Model>> {
    let mut query = tenant::Entity::find();
    if let Some(after) = after {
        query = query.filter(tenant::Column::Id.gt(after));
    }
    query.order_by_asc(tenant::Column::Id).limit(limit).all(conn).await.map_err(db_error)
}

/// Returns the slugs and ids of all brands of a tenant, without a limit.
pub(crate) async fn all_brands(conn: &impl ConnectionTrait, tenant: TenantId) -> Result<Vec<(String, BrandId)>> {
    let query = brand::Entity::find().select_only().columns([brand::Column::Slug, brand::Column::Id]);
    query.filter(brand::Column::TenantId.eq(tenant)).into_tuple().all(conn).await.map_err(db_error)
}

/// Whether the tenant's shares are as [`set_limits`] left them: all marked as limited if the tenant has limits, else none.
pub(crate) async fn are_shares_right(conn: &impl ConnectionTrait, tenant: &tenant::Model) -> Result<bool> {
    let query = tenant_usage::Entity::find().filter(tenant_usage::Column::TenantId.eq(tenant.id));
    let shares = query.filter(tenant_usage::Column::Limited.eq(true)).count(conn).await.map_err(db_error)?;
    Ok(shares == if is_limited(tenant) { u64::from(USAGE_STRIPES.unsigned_abs()) } else { 0 })
}

fn is_limited(tenant: &tenant::Model) -> bool {
    tenant.suspended_at.is_some() || tenant.quota_bytes.is_some() || tenant.quota_live_sessions.is_some()
}

/// One tenant's row in the result of [`usages`].
#[derive(Clone, Copy, Debug, FromQueryResult)]
struct UsageOf {
    tenant_id: TenantId,
    #[sea_orm(nested)]
    summed: Summed,
}

/// Returns the usage of each of these tenants; a tenant that never held anything is missing.
pub(super) async fn usages(conn: &impl ConnectionTrait, of: &[TenantId]) -> Result<HashMap<TenantId, Usage>> {
    let query = summing()
        .column(tenant_usage::Column::TenantId)
        .filter(tenant_usage::Column::TenantId.is_in(of.iter().copied()))
        .group_by(tenant_usage::Column::TenantId);
    let rows = query.into_model::<UsageOf>().all(conn).await.map_err(db_error)?;
    Ok(rows.into_iter().map(|row| (row.tenant_id, row.summed.usage())).collect())
}
