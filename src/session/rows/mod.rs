//! The SQL on sessions, but for changes of state, which are in `transition.rs`.

mod claim;
mod page;
mod queue;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use entity::upload_session::{self, Column, Entity, Status};
use entity::{BrandId, SessionId, TenantId, upload_event, upload_tombstone};
use sea_orm::sea_query::{Alias, CommonTableExpression, Expr, InsertStatement, WithClause};
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, IntoActiveModel, QueryFilter,
    QuerySelect, Select, UpdateMany, Value,
};
use serde_json::Value as Json;

use crate::caller::Caller;
use crate::clock::seconds;
use crate::database::{self, Conn, Database, Tx, db_error, ids, is_unique_violation, values};
use crate::error::Result;
use crate::input::{Metadata, Title};
use crate::settings;

pub(super) use claim::{Claim, find_claims};
pub(crate) use claim::{buckets, tenant_of};
pub use claim::{claims, next_bucket};
pub(super) use page::list;
pub(crate) use page::summarize;
pub use page::{Filter, batch_summary, page};
pub use queue::{Queue, queued};
pub(super) use queue::{next, next_locked};

type Session = upload_session::Model;

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
    pub(super) title: Option<&'a Title>,
    pub(super) metadata: Option<&'a Metadata>,
    pub(super) replaces: Replaces,
}

/// Which existing intent a new one may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replaces {
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
        update = update.col_expr(Column::CompletingTitle, Expr::value(title.as_str()));
    }
    if let Some(metadata) = intent.metadata {
        update = update.col_expr(Column::CompletingMetadata, Expr::value(metadata.to_value()));
    }
    if intent.replaces == Replaces::Nothing {
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
pub(super) async fn delete_with_tombstones(
    tx: &Tx,
    tenant: TenantId,
    tombstones: Vec<upload_tombstone::Model>,
) -> Result<()> {
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
