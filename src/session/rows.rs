use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use entity::upload_session::{self, Column, Entity, Status, UploadType};
use entity::{AssetId, BrandId, SessionId, TenantId, asset, upload_event, upload_tombstone};
use sea_orm::sea_query::{
    Alias, CommonTableExpression, Expr, ExprTrait, InsertStatement, LockBehavior, LockType, Order, Query,
    SelectStatement, UnionType, WithClause,
};
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, IdenStatic,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, UpdateMany, Value,
};
use serde_json::Value as Json;

use super::NewUpload;
use super::plan::Plan;
use crate::caller::{Brands, Caller, Permission};
use crate::clock::seconds;
use crate::database::{self, Conn, Database, Tx, db_error, ids, is_unique_violation, values};
use crate::error::Result;
use crate::event::chain::Link;
use crate::settings;
use crate::storage::UPLOADS;
use crate::tenant::rows::{halves, total};

type Session = upload_session::Model;

/// Above this many (brand, status) pairs a list has one short query for each status only, and IN for the brands. PostgreSQL
/// plans this many in 3 ms, and twice as many in far more than twice the time.
const ARMS_MAX: usize = 64;

pub(crate) async fn find(conn: &impl ConnectionTrait, tenant: TenantId, id: SessionId) -> Result<Option<Session>> {
    one(conn, by_id(tenant, id)).await
}

/// Returns those of the sessions that exist, in no order.
pub(super) async fn find_all(conn: &impl ConnectionTrait, tenant: TenantId, ids: &[SessionId]) -> Result<Vec<Session>> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let query = Entity::find().filter(Column::TenantId.eq(tenant)).filter(Column::Id.is_in(ids.iter().copied()));
    query.all(conn).await.map_err(db_error)
}

pub fn by_id(tenant: TenantId, id: SessionId) -> Select<Entity> {
    Entity::find_by_id((tenant, id))
}

/// The scope in which references and idempotency keys are unique.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub tenant: TenantId,
    pub brand: BrandId,
    pub user: &'a str,
}

impl Scope<'_> {
    fn filter(self) -> Condition {
        Condition::all()
            .add(Column::TenantId.eq(self.tenant))
            .add(Column::BrandId.eq(self.brand))
            .add(Column::CreatedBy.eq(self.user))
    }
}

pub fn by_idempotency_key(scope: Scope<'_>, key: &str) -> Select<Entity> {
    Entity::find().filter(scope.filter()).filter(Column::IdempotencyKey.eq(key))
}

pub fn by_references(scope: Scope<'_>, batch: &str, client: &str) -> Select<Entity> {
    Entity::find()
        .filter(scope.filter())
        .filter(Column::BatchReference.eq(batch))
        .filter(Column::ClientReference.eq(client))
}

/// Returns those of the client references that sessions of the batch already have.
pub(super) async fn taken(
    conn: &impl ConnectionTrait,
    scope: Scope<'_>,
    batch: &str,
    clients: &[&str],
) -> Result<HashSet<String>> {
    let query = Entity::find()
        .select_only()
        .column(Column::ClientReference)
        .filter(scope.filter())
        .filter(Column::BatchReference.eq(batch))
        .filter(Column::ClientReference.is_in(clients.iter().copied()));
    let taken: Vec<String> = query.into_tuple().all(conn).await.map_err(db_error)?;
    Ok(taken.into_iter().collect())
}

/// Returns the session that a query by a unique key finds.
pub(super) async fn one(conn: &impl ConnectionTrait, query: Select<Entity>) -> Result<Option<Session>> {
    // `Select::one` would bind a LIMIT, and SQLite (3.51) recompiles a statement with a bound LIMIT at every run.
    query.all(conn).await.map(|rows| rows.into_iter().next()).map_err(db_error)
}

/// The values of a new session's row.
pub(super) struct NewRow<'a> {
    pub(super) id: SessionId,
    /// The head after the session's first events.
    pub(super) chain_head: Vec<u8>,
    pub(super) events: i32,
    pub(super) scope: Scope<'a>,
    pub(super) new: &'a NewUpload,
    pub(super) planned: Plan,
    pub(super) bucket: &'a str,
    pub(super) profile: &'a str,
    pub(super) url_ttl_secs: u64,
    pub(super) now: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
}

/// Inserts new sessions; `false` if a reference or an idempotency key of one is taken. The transaction cannot be used after
/// that.
pub(super) async fn insert(tx: &Tx, sessions: &[Session]) -> Result<bool> {
    let rows = sessions.iter().map(|session| session.clone().into_active_model());
    match Entity::insert_many(rows).exec_without_returning(tx.conn()).await {
        Ok(_) => Ok(true),
        Err(error) if is_unique_violation(&error) => Ok(false),
        Err(error) => Err(db_error(error)),
    }
}

/// The outcome of an insert of new sessions.
pub(super) enum Inserted {
    All,
    /// A reference or an idempotency key of one belongs to another session.
    Taken,
    /// Nothing was inserted: the tenant has limits to check, or has no room in its count, or the database is SQLite.
    None,
}

/// Inserts new sessions with their events if `reserving` adds them to the usage, all by one statement. SQLite does not
/// support such a statement.
pub(super) async fn insert_where(
    conn: &Conn,
    sessions: &[Session],
    events: &[upload_event::ActiveModel],
    reserving: InsertStatement,
) -> Result<Inserted> {
    if conn.get_database_backend() != DbBackend::Postgres {
        return Ok(Inserted::None);
    }
    let (counted, stored) = (Alias::new("counted"), Alias::new("stored"));
    let rows = database::insert_where(sessions.iter().map(|session| session.clone().into_active_model()), &counted);
    let mut with = WithClause::new();
    with.cte(CommonTableExpression::new().table_name(counted.clone()).query(reserving).to_owned());
    with.cte(CommonTableExpression::new().table_name(stored).query(rows).to_owned());
    let insert = database::insert_where(events.iter().cloned(), &counted).with(with);
    match conn.execute(&insert).await {
        Ok(inserted) if inserted.rows_affected() > 0 => Ok(Inserted::All),
        Ok(_) => Ok(Inserted::None),
        Err(error) if is_unique_violation(&error) => Ok(Inserted::Taken),
        Err(error) => Err(db_error(error)),
    }
}

/// Builds a new session's row.
pub(super) fn session(row: &NewRow<'_>) -> Session {
    let new = row.new;
    let (upload_type, chunk_size, total_parts) = match row.planned {
        Plan::Direct => (UploadType::Direct, None, None),
        Plan::Multipart { chunk, parts } => (UploadType::Multipart, Some(signed(chunk)), i32::try_from(parts).ok()),
    };
    // Each change of state has its number, and a direct session has already had its first one.
    let (status, version) = match row.planned {
        Plan::Direct => (Status::Uploading, 2),
        Plan::Multipart { .. } => (Status::Initiating, 1),
    };
    Session {
        tenant_id: row.scope.tenant,
        id: row.id,
        brand_id: row.scope.brand,
        created_by: row.scope.user.to_owned(),
        status,
        version,
        event_seq: row.events,
        chain_head: row.chain_head.clone(),
        failure_reason: None,
        upload_type,
        profile: row.profile.to_owned(),
        url_ttl_secs: i32::try_from(row.url_ttl_secs).unwrap_or(i32::MAX),
        bucket: row.bucket.to_owned(),
        multipart_upload_id: None,
        chunk_size,
        total_parts,
        file_name: new.file_name.clone(),
        file_size: signed(new.file_size),
        mime_type: new.mime_type.clone(),
        checksum_sha256: new.checksum_sha256.clone(),
        metadata: new.metadata.clone(),
        client_reference: new.client_reference.clone(),
        batch_reference: new.batch_reference.clone(),
        fingerprint: new.fingerprint.clone(),
        idempotency_key: new.idempotency_key.clone(),
        asset_id: AssetId::new(),
        completing_at: None,
        completing_by: None,
        completing_title: None,
        completing_metadata: None,
        created_at: row.now,
        updated_at: row.now,
        last_activity_at: row.now,
        expires_at: row.expires_at,
        completed_at: None,
        failed_at: None,
        cancelled_at: None,
        storage_cleared_at: None,
        clear_failed_at: None,
    }
}

/// Converts a size. Sizes are far below 2^63, because the largest object of any store is.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Records activity: moves `last_activity_at` and, within the longest lifetime, `expires_at`; at most once in
/// `sessions.activity_write_secs`.
/// `None` if the session is no longer UPLOADING, has expired, or had activity within that time.
pub(super) async fn touch(
    db: &Database,
    session: &Session,
    settings: &settings::Sessions,
    now: DateTime<Utc>,
) -> Result<Option<Session>> {
    let before = now - seconds(settings.activity_write_secs);
    let touch = touching(session, settings, now).filter(Column::LastActivityAt.lte(before));
    alone(db, session.tenant_id, touch).await
}

/// The intent to complete, with the title and metadata that the asset will have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intent<'a> {
    pub(super) by: &'a str,
    /// If this or `metadata` is absent, the value of an existing intent stays.
    pub(super) title: Option<&'a str>,
    pub(super) metadata: Option<&'a Json>,
    pub(super) over: Over,
}

/// Which existing intent a new one may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Nothing,
    Any,
}

/// Stores the intent to complete, before the store is asked to do anything. It counts as activity.
/// `None` if the session is no longer UPLOADING, has expired, or has an intent that this one must not replace.
pub(super) async fn intend(
    db: &Database,
    session: &Session,
    intent: &Intent<'_>,
    settings: &settings::Sessions,
    now: DateTime<Utc>,
) -> Result<Option<Session>> {
    let mut update = touching(session, settings, now)
        .col_expr(Column::CompletingAt, Expr::value(now))
        .col_expr(Column::CompletingBy, Expr::value(intent.by));
    if let Some(title) = intent.title {
        update = update.col_expr(Column::CompletingTitle, Expr::value(title));
    }
    if let Some(metadata) = intent.metadata {
        update = update.col_expr(Column::CompletingMetadata, Expr::value(metadata.clone()));
    }
    if intent.over == Over::Nothing {
        update = update.filter(Column::CompletingAt.is_null());
    }
    alone(db, session.tenant_id, update).await
}

/// Like [`intend`], for many sessions of one tenant without an intent, by one statement. Returns those that have it now.
pub(super) async fn intend_all(
    db: &Database,
    seen: Vec<Session>,
    caller: &Caller,
    settings: &settings::Sessions,
    now: DateTime<Utc>,
) -> Result<Vec<Session>> {
    if seen.is_empty() {
        return Ok(vec![]);
    }
    let mut bound: Vec<Value> =
        vec![now.into(), caller.user().into(), caller.tenant.into(), Status::Uploading.to_value().into()];
    let rows = seen.iter().map(|seen| [seen.id.into(), expiry(seen.created_at, now, settings).into()]);
    let rows = values(rows, &mut bound);
    let sql = format!(
        "UPDATE upload_session SET completing_at = $1, completing_by = $2, last_activity_at = $1, updated_at = $1,
            expires_at = seen.column2
        FROM ({rows}) AS seen
        WHERE upload_session.tenant_id = $3 AND upload_session.id = seen.column1 AND upload_session.status = $4
            AND upload_session.expires_at > $1 AND upload_session.completing_at IS NULL
        RETURNING upload_session.id"
    );
    let tx = db.begin_for(caller.tenant).await?;
    let intended: HashSet<SessionId> = ids(&tx, sql, bound).await?;
    tx.commit().await?;
    let as_it_is = |seen: Session| Session {
        completing_at: Some(now),
        completing_by: Some(caller.user().to_owned()),
        last_activity_at: now,
        updated_at: now,
        expires_at: expiry(seen.created_at, now, settings),
        ..seen
    };
    Ok(seen.into_iter().filter(|seen| intended.contains(&seen.id)).map(as_it_is).collect())
}

fn touching(session: &Session, settings: &settings::Sessions, now: DateTime<Utc>) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::LastActivityAt, Expr::value(now))
        .col_expr(Column::ExpiresAt, Expr::value(expiry(session.created_at, now, settings)))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::TenantId.eq(session.tenant_id))
        .filter(Column::Id.eq(session.id))
        .filter(Column::Status.eq(Status::Uploading))
        .filter(Column::ExpiresAt.gt(now))
}

/// Runs one guarded UPDATE of one session as a transaction by itself; `None` if its guard does not hold.
async fn alone(db: &Database, tenant: TenantId, update: UpdateMany<Entity>) -> Result<Option<Session>> {
    let conn = db.write_conn().of(tenant);
    let updated = update.exec_with_returning(&conn).await.map_err(db_error)?;
    Ok(updated.into_iter().next())
}

/// What is read of a session whose id comes from a key.
#[derive(Clone, Debug, FromQueryResult)]
pub(super) struct Claim {
    pub(super) tenant_id: TenantId,
    pub(super) id: SessionId,
    pub(super) status: Status,
    pub(super) bucket: String,
    pub(super) multipart_upload_id: Option<String>,
    pub(super) storage_cleared_at: Option<DateTime<Utc>>,
    /// `None` if there is no asset.
    pub(super) asset_status: Option<asset::Status>,
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
pub(super) async fn find_claims(conn: &impl ConnectionTrait, ids: &[SessionId]) -> Result<Vec<Claim>> {
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

/// Returns the UPDATE that advances a session to its next event. Matches nothing if an event was added since `seen` was
/// read.
pub(super) fn advancing(seen: &Session, link: &Link) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::EventSeq, Expr::value(seen.event_seq + 1))
        .col_expr(Column::ChainHead, Expr::value(link.head.clone()))
        .filter(Column::TenantId.eq(seen.tenant_id))
        .filter(Column::Id.eq(seen.id))
        .filter(Column::EventSeq.eq(seen.event_seq))
}

/// What the UPDATE for an event also records about the session's storage.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Nothing,
    /// Nothing is left in the store, as of this time.
    Cleared(DateTime<Utc>),
    /// Something is still left: the session goes to the end of its queue, and is a finding until it is cleared.
    Tried(DateTime<Utc>),
}

/// Advances the session to an event that does not change its state.
pub(crate) async fn advance(tx: &Tx, seen: &Session, link: &Link, mark: Mark) -> Result<Option<Session>> {
    let update = advancing(seen, link);
    let update = match mark {
        Mark::Nothing => update,
        Mark::Cleared(at) => {
            update.col_expr(Column::StorageClearedAt, Expr::value(at)).filter(Column::StorageClearedAt.is_null())
        }
        Mark::Tried(at) => update
            .col_expr(Column::UpdatedAt, Expr::value(at))
            .col_expr(Column::ClearFailedAt, Expr::col(Column::ClearFailedAt).if_null(at)),
    };
    let advanced = update.exec_with_returning(tx.conn()).await.map_err(db_error)?;
    Ok(advanced.into_iter().next())
}

/// Like [`advance`], for many sessions by one statement, without a mark. Each must be named once. Returns those that
/// advanced.
pub(crate) async fn advance_all(tx: &Tx, advances: &[(&Session, &Link)]) -> Result<HashSet<SessionId>> {
    if advances.is_empty() {
        return Ok(HashSet::new());
    }
    let mut bound = Vec::new();
    let rows = advances
        .iter()
        .map(|(seen, link)| [seen.tenant_id.into(), seen.id.into(), seen.event_seq.into(), link.head.clone().into()]);
    let seen = values(rows, &mut bound);
    let sql = format!(
        "UPDATE upload_session SET event_seq = upload_session.event_seq + 1, chain_head = seen.column4
        FROM ({seen}) AS seen
        WHERE upload_session.tenant_id = seen.column1 AND upload_session.id = seen.column2
            AND upload_session.event_seq = seen.column3
        RETURNING upload_session.id"
    );
    ids(tx, sql, bound).await
}

/// The sessions that a scheduled pass processes, oldest first. Each queue has a partial index that holds only its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// UPLOADING, with the last activity before this time.
    Idle(DateTime<Utc>),
    /// UPLOADING, with an `expires_at` not after this time.
    Expired(DateTime<Utc>),
    /// INITIATING, created before this time.
    Initiating(DateTime<Utc>),
    /// UPLOADING, with an intent to complete from before this time.
    Completing(DateTime<Utc>),
    /// FAILED or CANCELLED, not cleared, and not tried after this time.
    Uncleared(DateTime<Utc>),
    /// COMPLETED and not cleared, with an asset that is served from its own key.
    Unmoved,
    /// FAILED or CANCELLED, and cleared before this time.
    Past(DateTime<Utc>),
}

impl Queue {
    /// The condition of its sessions, with literals as in its partial index. Neither database would use the index for bound
    /// values.
    fn filter(self) -> Condition {
        let is = |status: Status| Expr::col(Column::Status).eq(literal(status));
        let ended = || Expr::col(Column::Status).is_in([literal(Status::Failed), literal(Status::Cancelled)]);
        let all = Condition::all();
        match self {
            Self::Idle(before) => all.add(is(Status::Uploading)).add(Column::LastActivityAt.lt(before)),
            Self::Expired(now) => all.add(is(Status::Uploading)).add(Column::ExpiresAt.lte(now)),
            Self::Initiating(before) => all.add(is(Status::Initiating)).add(Column::CreatedAt.lt(before)),
            Self::Completing(before) => all
                .add(is(Status::Uploading))
                .add(Column::CompletingAt.is_not_null())
                .add(Column::CompletingAt.lt(before)),
            Self::Uncleared(tried) => {
                all.add(Column::StorageClearedAt.is_null()).add(ended()).add(Column::UpdatedAt.lte(tried))
            }
            Self::Unmoved => {
                all.add(Column::StorageClearedAt.is_null()).add(is(Status::Completed)).add(Expr::exists(moved_asset()))
            }
            Self::Past(before) => {
                all.add(Column::StorageClearedAt.is_not_null()).add(ended()).add(Column::StorageClearedAt.lt(before))
            }
        }
    }

    /// The time column that it is ordered by, before the ids.
    fn time(self) -> Option<Column> {
        match self {
            Self::Idle(_) => Some(Column::LastActivityAt),
            Self::Expired(_) => Some(Column::ExpiresAt),
            Self::Initiating(_) => Some(Column::CreatedAt),
            Self::Completing(_) => Some(Column::CompletingAt),
            Self::Uncleared(_) => Some(Column::UpdatedAt),
            Self::Unmoved => None,
            Self::Past(_) => Some(Column::StorageClearedAt),
        }
    }

    /// The session's place in it, as values of the columns that it is ordered by.
    fn place(self, session: &Session) -> Vec<Expr> {
        let time = match self {
            Self::Idle(_) => Some(session.last_activity_at),
            Self::Expired(_) => Some(session.expires_at),
            Self::Initiating(_) => Some(session.created_at),
            Self::Completing(_) => session.completing_at,
            Self::Uncleared(_) => Some(session.updated_at),
            Self::Unmoved => None,
            Self::Past(_) => session.storage_cleared_at,
        };
        let ids = [Expr::value(session.tenant_id), Expr::value(session.id)];
        time.map(Expr::value).into_iter().chain(ids).collect()
    }
}

fn literal(status: Status) -> Expr {
    Expr::Constant(status.to_value().into())
}

fn moved_asset() -> SelectStatement {
    let of_session = |asset_column: asset::Column, session_column: Column| {
        Expr::col((asset::Entity, asset_column)).equals((Entity, session_column))
    };
    Query::select()
        .expr(Expr::value(1))
        .from(asset::Entity)
        .and_where(of_session(asset::Column::TenantId, Column::TenantId))
        .and_where(of_session(asset::Column::Id, Column::AssetId))
        .and_where(Expr::col((asset::Entity, asset::Column::Status)).eq(asset::Status::Ready.to_value()))
        .and_where(Expr::col((asset::Entity, asset::Column::ObjectKey)).not_like(format!("{UPLOADS}%")))
        .to_owned()
}

/// Selects up to `limit` sessions of a queue that come after `after`.
pub fn queued(queue: Queue, after: Option<&Session>, limit: u64) -> Select<Entity> {
    let columns: Vec<Column> = queue.time().into_iter().chain([Column::TenantId, Column::Id]).collect();
    let mut query = Entity::find().filter(queue.filter());
    if let Some(after) = after {
        let place = Expr::tuple(columns.iter().map(|column| Expr::col(*column)));
        query = query.filter(place.gt(Expr::tuple(queue.place(after))));
    }
    columns.into_iter().fold(query, |query, column| query.order_by_asc(column)).limit(limit)
}

/// Runs [`queued`].
pub(super) async fn next(
    conn: &impl ConnectionTrait,
    queue: Queue,
    after: Option<&Session>,
    limit: u64,
) -> Result<Vec<Session>> {
    queued(queue, after, limit).all(conn).await.map_err(db_error)
}

/// Like [`next`], with the rows locked until the transaction ends, and without rows that others have locked. A write
/// transaction of SQLite has the whole database to itself.
pub(super) async fn next_locked(tx: &Tx, queue: Queue, after: Option<&Session>, limit: u64) -> Result<Vec<Session>> {
    let query = queued(queue, after, limit).lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    query.all(tx.conn()).await.map_err(db_error)
}

/// Records that bytes arrived in the store at `at`, by our clock, unless later activity is recorded. Also past `expires_at`,
/// for a client that sends its bytes without contacting this server.
/// `None` if the session is no longer UPLOADING, or has later activity.
pub(super) async fn touch_as_of(
    db: &Database,
    session: &Session,
    settings: &settings::Sessions,
    at: DateTime<Utc>,
) -> Result<Option<Session>> {
    let update = Entity::update_many()
        .col_expr(Column::LastActivityAt, Expr::value(at))
        .col_expr(Column::ExpiresAt, Expr::value(expiry(session.created_at, at, settings)))
        .filter(Column::TenantId.eq(session.tenant_id))
        .filter(Column::Id.eq(session.id))
        .filter(Column::Status.eq(Status::Uploading))
        .filter(Column::LastActivityAt.lt(at));
    alone(db, session.tenant_id, update).await
}

/// Withdraws an intent to complete that was refused, so that no pass acts on it later. Leaves an intent that has replaced
/// it.
pub(super) async fn withdraw(db: &Database, session: &Session) -> Result<()> {
    let update = Entity::update_many()
        .col_expr(Column::CompletingAt, Expr::value(None::<DateTime<Utc>>))
        .col_expr(Column::CompletingBy, Expr::value(None::<String>))
        .col_expr(Column::CompletingTitle, Expr::value(None::<String>))
        .col_expr(Column::CompletingMetadata, Expr::value(None::<Json>))
        .filter(Column::TenantId.eq(session.tenant_id))
        .filter(Column::Id.eq(session.id))
        .filter(Column::Status.eq(Status::Uploading))
        .filter(Column::CompletingAt.eq(session.completing_at));
    let conn = db.write_conn().of(session.tenant_id);
    update.exec(&conn).await.map(drop).map_err(db_error)
}

/// Records an attempt to open an INITIATING session whose store did not answer, so that the session does not count as stuck.
/// Does nothing if it is no longer INITIATING.
pub(super) async fn touch_initiating(db: &Database, session: &Session, now: DateTime<Utc>) -> Result<()> {
    let update = Entity::update_many()
        .col_expr(Column::LastActivityAt, Expr::value(now))
        .filter(Column::TenantId.eq(session.tenant_id))
        .filter(Column::Id.eq(session.id))
        .filter(Column::Status.eq(Status::Initiating))
        .filter(Column::LastActivityAt.lt(now));
    update.exec(&db.write_conn().of(session.tenant_id)).await.map(drop).map_err(db_error)
}

/// Deletes sessions of one tenant, whose events are deleted already, and leaves a tombstone for each.
pub(super) async fn bury(tx: &Tx, tenant: TenantId, tombstones: Vec<upload_tombstone::Model>) -> Result<()> {
    let ids: Vec<SessionId> = tombstones.iter().map(|tombstone| tombstone.upload_session_id).collect();
    let rows = tombstones.into_iter().map(IntoActiveModel::into_active_model);
    upload_tombstone::Entity::insert_many(rows).exec_without_returning(tx.conn()).await.map_err(db_error)?;
    Entity::delete_many()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::Id.is_in(ids))
        .exec(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}

/// Returns when a session created at `created` with activity at `now` expires: `expires_after_secs` after the activity, but
/// no later than `max_lifetime_secs` after its creation.
pub(super) fn expiry(created: DateTime<Utc>, now: DateTime<Utc>, settings: &settings::Sessions) -> DateTime<Utc> {
    let latest = created + seconds(settings.max_lifetime_secs);
    std::cmp::min(now + seconds(settings.expires_after_secs), latest)
}

/// The filter of a list; an empty field matches any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub statuses: Vec<Status>,
    pub brand: Option<BrandId>,
    pub created_by: Option<String>,
    pub batch_reference: Option<String>,
    pub client_reference: Option<String>,
    pub fingerprint: Option<String>,
}

/// Selects up to `limit` sessions that the caller may see, newest first, older than `before`.
///
/// A list is the merge of one short keyset query for each state, and for each brand if brands are limited. Each query
/// follows one index and fixes all its columns but the last, the id. So a list reads only what it returns, however many
/// sessions there are. A query with IN would read and sort all matches.
pub fn page(
    backend: DbBackend,
    caller: &Caller,
    filter: &Filter,
    before: Option<SessionId>,
    limit: u64,
) -> SelectStatement {
    let brands = match (&caller.brands, filter.brand) {
        (_, Some(brand)) if !caller.brands.hold(brand) => Some(vec![]),
        (_, Some(brand)) => Some(vec![brand]),
        (Brands::All, None) => None,
        (Brands::These(held), None) => Some(without_repeats(held)),
    };
    let user = visible_user(caller, filter.created_by.as_deref());
    // SQLite uses the index that fixes most columns, regardless of their values. A plus before a column hides it from its
    // index: then SQLite searches by the client reference, which few sessions have, and not through all sessions of a user
    // or a batch.
    let by_client_reference = backend == DbBackend::Sqlite && filter.client_reference.is_some();
    let beside = |column: Column| match by_client_reference {
        true => Expr::cust(format!("+{}", column.as_str())),
        false => Expr::col(column),
    };

    let mut common = Condition::all().add(Column::TenantId.eq(caller.tenant));
    if let Some(before) = before {
        common = common.add(Column::Id.lt(before));
    }
    common = match user {
        Visible::Anyone => common,
        Visible::Only(user) => common.add(beside(Column::CreatedBy).eq(user)),
        // A caller who sees only their own sessions has asked for another user's.
        Visible::Nobody => common.add(Expr::value(false)),
    };
    if let Some(batch) = &filter.batch_reference {
        common = common.add(beside(Column::BatchReference).eq(batch.as_str()));
    }
    if let Some(reference) = &filter.client_reference {
        common = common.add(Column::ClientReference.eq(reference));
    }
    if let Some(fingerprint) = &filter.fingerprint {
        common = common.add(Column::Fingerprint.eq(fingerprint));
    }

    let references = [&filter.batch_reference, &filter.client_reference, &filter.fingerprint];
    let referenced = references.into_iter().any(Option::is_some);
    if matches!(user, Visible::Anyone) && brands.is_none() && filter.statuses.is_empty() && !referenced {
        // All sessions of the tenant: follows the primary key.
        return merge(backend, vec![common], caller.tenant, limit);
    }
    let statuses = if filter.statuses.is_empty() { all_statuses() } else { without_repeats(&filter.statuses) };
    let by_brand = match brands {
        None => vec![common],
        // The sessions of a batch, or of one file, are few and mostly of one brand.
        Some(brands) if referenced || brands.len() * statuses.len() > ARMS_MAX => {
            vec![common.add(beside(Column::BrandId).is_in(brands.into_iter().map(Expr::value)))]
        }
        Some(brands) => brands.into_iter().map(|brand| common.clone().add(Column::BrandId.eq(brand))).collect(),
    };
    let arms = by_brand
        .into_iter()
        .flat_map(|arm| statuses.iter().map(move |status| arm.clone().add(Column::Status.eq(*status))))
        .collect();
    merge(backend, arms, caller.tenant, limit)
}

/// Removes duplicates: two equal arms would list their sessions twice.
fn without_repeats<T: PartialEq + Copy>(items: &[T]) -> Vec<T> {
    let mut seen = Vec::with_capacity(items.len());
    for item in items {
        if !seen.contains(item) {
            seen.push(*item);
        }
    }
    seen
}

/// Selects the sessions that match any of `arms`, newest first. No session may match two.
fn merge(backend: DbBackend, arms: Vec<Condition>, tenant: TenantId, limit: u64) -> SelectStatement {
    let arm_ids = |arm: Condition| {
        let mut ids = Query::select().column(Column::Id).from(Entity).cond_where(arm).to_owned();
        if backend == DbBackend::Postgres {
            // The limit makes the planner follow an index instead of collecting and sorting all matches. SQLite follows the
            // index anyway, and reads only as far as the merge needs; with a limit it would read up to the limit.
            ids.order_by(Column::Id, Order::Desc).limit(limit);
            ids = Query::select().column(Column::Id).from_subquery(ids, Alias::new("arm")).to_owned();
        }
        ids
    };
    let mut arms = arms.into_iter().map(arm_ids);
    let mut ids = arms.next().unwrap_or_else(|| arm_ids(Condition::all().add(Expr::value(false))));
    ids.unions(arms.map(|arm| (UnionType::All, arm))).order_by(Column::Id, Order::Desc).limit(limit);

    Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(
            Column::Id
                .in_subquery(Query::select().column(Column::Id).from_subquery(ids, Alias::new("newest")).to_owned()),
        )
        .order_by_desc(Column::Id)
        .limit(limit)
        .into_query()
}

fn all_statuses() -> Vec<Status> {
    vec![Status::Initiating, Status::Uploading, Status::Completed, Status::Failed, Status::Cancelled]
}

enum Visible<'a> {
    Anyone,
    Only(&'a str),
    Nobody,
}

fn visible_user<'a>(caller: &'a Caller, asked: Option<&'a str>) -> Visible<'a> {
    match (caller.permissions.has(Permission::UploadsManage), asked) {
        (true, None) => Visible::Anyone,
        (true, Some(user)) => Visible::Only(user),
        (false, Some(user)) if user != caller.user() => Visible::Nobody,
        (false, _) => Visible::Only(caller.user()),
    }
}

/// Runs [`page`].
pub(super) async fn list(
    conn: &impl ConnectionTrait,
    caller: &Caller,
    filter: &Filter,
    before: Option<SessionId>,
    limit: u64,
) -> Result<Vec<Session>> {
    let backend = conn.get_database_backend();
    Session::find_by_statement(backend.build(&page(backend, caller, filter, before, limit)))
        .all(conn)
        .await
        .map_err(db_error)
}

/// One line of a batch's summary.
#[derive(Clone, Debug, FromQueryResult)]
pub(crate) struct StatusCount {
    pub(crate) status: Status,
    pub(crate) sessions: i64,
    bytes_upper: i64,
    bytes_lower: i64,
    pub(crate) first_at: DateTime<Utc>,
    pub(crate) last_at: DateTime<Utc>,
}

impl StatusCount {
    /// At most `i64::MAX`.
    pub(crate) fn bytes(&self) -> i64 {
        total(self.bytes_upper, self.bytes_lower)
    }
}

/// Selects a line for each state that occurs among the sessions of one batch that the caller may see.
pub fn batch_summary(caller: &Caller, batch: &str) -> Select<Entity> {
    let [upper, lower] = halves(Column::FileSize);
    let mut query = Entity::find()
        .select_only()
        .column(Column::Status)
        .column_as(Column::Id.count(), "sessions")
        .column_as(upper, "bytes_upper")
        .column_as(lower, "bytes_lower")
        .column_as(Column::CreatedAt.min(), "first_at")
        .column_as(Column::LastActivityAt.max(), "last_at")
        .filter(Column::TenantId.eq(caller.tenant))
        .filter(Column::BatchReference.eq(batch))
        .group_by(Column::Status);
    if let Visible::Only(user) = visible_user(caller, None) {
        query = query.filter(Column::CreatedBy.eq(user));
    }
    if let Brands::These(held) = &caller.brands {
        query = query.filter(Column::BrandId.is_in(held.iter().copied()));
    }
    query
}

pub(crate) async fn summarize(conn: &impl ConnectionTrait, caller: &Caller, batch: &str) -> Result<Vec<StatusCount>> {
    batch_summary(caller, batch).into_model::<StatusCount>().all(conn).await.map_err(db_error)
}
