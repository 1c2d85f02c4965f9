use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use entity::upload_event::{self, ActiveModel, Column};
use entity::upload_session::{self, Status};
use entity::{AssetId, BrandId, SessionId, TenantId, asset, feed, pruned_places, tenant, upload_tombstone};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult,
    IntoActiveModel, JoinType, QueryFilter, QueryOrder, QuerySelect, RelationDef, Select, Statement,
};

use super::Entry;
use crate::database::{DbErr, Snapshot, Tx, db_error};
use crate::error::{Error, Result};

/// The PostgreSQL channel on which processes announce events and places to each other.
pub(crate) const CHANNEL: &str = "quaymaster_feed";

/// Inserts event number `seq` of a session whose row the same transaction has advanced.
pub(crate) async fn insert(
    tx: &Tx,
    tenant: TenantId,
    session: SessionId,
    seq: i32,
    entry: &Entry<'_>,
    mac: Vec<u8>,
) -> Result<()> {
    insert_all(tx, vec![row(tenant, session, seq, entry, &mac)]).await
}

pub(crate) fn row(tenant: TenantId, session: SessionId, seq: i32, entry: &Entry<'_>, mac: &[u8]) -> ActiveModel {
    ActiveModel {
        tenant_id: Set(tenant),
        upload_session_id: Set(session),
        seq: Set(seq),
        at: Set(entry.at),
        event: Set(entry.event.to_owned()),
        from_status: Set(entry.from),
        to_status: Set(entry.to),
        actor: Set(entry.actor.to_owned()),
        actor_kind: Set(entry.actor_kind),
        reason: Set(entry.reason),
        details: Set(entry.details.clone()),
        mac: Set(mac.to_owned()),
        position: Set(None),
    }
}

/// Inserts events of sessions whose rows the same transaction has advanced.
pub(crate) async fn insert_all(tx: &Tx, rows: Vec<ActiveModel>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    tx.tell_after(CHANNEL);
    upload_event::Entity::insert_many(rows).exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}

/// Returns the session's last event.
pub(super) async fn last_of(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    session: SessionId,
) -> Result<Option<upload_event::Model>> {
    let last = upload_event::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::UploadSessionId.eq(session))
        .order_by_desc(Column::Seq);
    last.one(conn).await.map_err(db_error)
}

/// Returns the session's events, oldest first. A session has a handful; the limit is there so that every query has one.
pub(crate) async fn of_session(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    session: SessionId,
) -> Result<Vec<upload_event::Model>> {
    by_session(tenant, session).all(conn).await.map_err(db_error)
}

pub fn by_session(tenant: TenantId, session: SessionId) -> Select<upload_event::Entity> {
    upload_event::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::UploadSessionId.eq(session))
        .order_by_asc(Column::Seq)
        .limit(10_000)
}

/// An event that has its place in the order of all events, with the facts about its session that readers are told.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Placed {
    pub position: i64,
    pub tenant_id: TenantId,
    pub upload_session_id: SessionId,
    pub at: DateTime<Utc>,
    pub event: String,
    pub to_status: Option<Status>,
    pub brand_id: BrandId,
    pub created_by: String,
    /// The session's status when it was read, which may be later than the event.
    pub status: Status,
    pub asset_id: AssetId,
    pub batch_reference: Option<String>,
    pub client_reference: Option<String>,
}

/// Returns whether any event waits for its place. Does not write, so that an idle server does nothing. The ORDER BY is that
/// of the index of waiting events: without it, PostgreSQL may read the whole table if its statistics are from a time when
/// many events waited.
pub(super) async fn any_unplaced(conn: &impl ConnectionTrait) -> Result<bool> {
    let sql = "SELECT 1 AS one FROM upload_event WHERE position IS NULL
        ORDER BY seq, at LIMIT 1";
    let found = conn.query_one_raw(Statement::from_string(conn.get_database_backend(), sql)).await;
    Ok(found.map_err(db_error)?.is_some())
}

/// Takes the turn to give places, until the transaction ends. Returns the last place that was given.
pub(super) async fn take_turn(tx: &Tx) -> Result<i64> {
    let sql = "UPDATE feed SET last_position = last_position WHERE id = 1 RETURNING last_position";
    let row = tx.conn().query_one_raw(Statement::from_string(tx.conn().get_database_backend(), sql)).await;
    match row.map_err(db_error)? {
        Some(row) => row.try_get_by_index(0).map_err(db_error),
        None => Err(Error::Db(DbErr::RecordNotFound("the row of feed".to_owned()))),
    }
}

/// Gives the places after `last` to at most `most` events. Returns these places, in no order.
///
/// Within a session, places follow `seq`: a reader that sees an event committed also sees the earlier ones, and events are
/// chosen by `seq` first. The chosen events are ordered by time, but none comes before an earlier one of its session.
pub(super) async fn place(tx: &Tx, last: i64, most: u32) -> Result<Vec<i64>> {
    let sql = "UPDATE upload_event SET position = $1 + waiting.place
        FROM (
            SELECT tenant_id, upload_session_id, seq,
                row_number() OVER (ORDER BY reached, seq, tenant_id, upload_session_id) AS place
            FROM (
                SELECT tenant_id, upload_session_id, seq,
                    max(at) OVER (PARTITION BY tenant_id, upload_session_id ORDER BY seq) AS reached
                FROM (
                    SELECT tenant_id, upload_session_id, seq, at FROM upload_event WHERE position IS NULL
                    ORDER BY seq, at, tenant_id, upload_session_id LIMIT $2
                ) AS first
            ) AS timed
        ) AS waiting
        WHERE upload_event.tenant_id = waiting.tenant_id
            AND upload_event.upload_session_id = waiting.upload_session_id
            AND upload_event.seq = waiting.seq
        RETURNING upload_event.position";
    let values = [last.into(), i64::from(most).into()];
    let statement = Statement::from_sql_and_values(tx.conn().get_database_backend(), sql, values);
    let rows = tx.conn().query_all_raw(statement).await.map_err(db_error)?;
    rows.iter().map(|row| row.try_get_by_index(0).map_err(db_error)).collect()
}

/// Records the last place that was given, and notifies other processes on PostgreSQL.
pub(super) async fn end_turn(tx: &Tx, last: i64) -> Result<()> {
    let backend = tx.conn().get_database_backend();
    let sql = "UPDATE feed SET last_position = $1 WHERE id = 1";
    tx.conn().execute_raw(Statement::from_sql_and_values(backend, sql, [last.into()])).await.map_err(db_error)?;
    if backend == DbBackend::Postgres {
        tx.conn().execute_unprepared(&format!("NOTIFY {CHANNEL}")).await.map_err(db_error)?;
    }
    Ok(())
}

/// Returns the last place that was given.
pub(super) async fn last_position(conn: &impl ConnectionTrait) -> Result<i64> {
    let feed = feed::Entity::find_by_id(1).one(conn).await.map_err(db_error)?;
    Ok(feed.map_or(0, |feed| feed.last_position))
}

/// Which events [`placed`] reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// `None`: all tenants.
    pub(super) tenant: Option<TenantId>,
    pub(super) after: i64,
    pub(super) until: Option<i64>,
    pub(super) limit: u64,
}

/// Returns events in the order of their places. Events of sessions without a row are left out.
pub(super) async fn placed(conn: &impl ConnectionTrait, span: Span) -> Result<Vec<Placed>> {
    let mut query = upload_event::Entity::find()
        .select_only()
        .columns([Column::Position, Column::TenantId, Column::UploadSessionId, Column::At, Column::Event])
        .column(Column::ToStatus)
        .columns([upload_session::Column::BrandId, upload_session::Column::CreatedBy, upload_session::Column::Status])
        .columns([upload_session::Column::AssetId, upload_session::Column::BatchReference])
        .column(upload_session::Column::ClientReference)
        .join(JoinType::InnerJoin, session_of_event())
        .filter(Column::Position.gt(span.after));
    if let Some(tenant) = span.tenant {
        query = query.filter(Column::TenantId.eq(tenant));
    }
    if let Some(until) = span.until {
        query = query.filter(Column::Position.lte(until));
    }
    query.order_by_asc(Column::Position).limit(span.limit).into_model().all(conn).await.map_err(db_error)
}

fn session_of_event() -> RelationDef {
    upload_event::Entity::belongs_to(upload_session::Entity)
        .from((Column::TenantId, Column::UploadSessionId))
        .to((upload_session::Column::TenantId, upload_session::Column::Id))
        .into()
}

/// Returns all tenants, or only the given one.
pub(super) async fn tenants(at: &Snapshot, one: Option<TenantId>) -> Result<Vec<TenantId>> {
    let mut query = tenant::Entity::find().select_only().column(tenant::Column::Id);
    if let Some(one) = one {
        query = query.filter(tenant::Column::Id.eq(one));
    }
    query.order_by_asc(tenant::Column::Id).into_tuple().all(at.conn()).await.map_err(db_error)
}

/// A range of session ids of one tenant: above `after`, up to and including `until`. `None` leaves that side open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub(super) tenant: TenantId,
    pub(super) after: Option<SessionId>,
    pub(super) until: Option<SessionId>,
}

impl Ids {
    fn filter(self, tenant: impl ColumnTrait, session: impl ColumnTrait) -> Condition {
        let mut all = Condition::all().add(tenant.eq(self.tenant));
        if let Some(after) = self.after {
            all = all.add(session.gt(after));
        }
        if let Some(until) = self.until {
            all = all.add(session.lte(until));
        }
        all
    }
}

/// Returns the first sessions of the range.
pub(super) async fn sessions(at: &Snapshot, ids: Ids, limit: u64) -> Result<Vec<upload_session::Model>> {
    upload_session::Entity::find()
        .filter(ids.filter(upload_session::Column::TenantId, upload_session::Column::Id))
        .order_by_asc(upload_session::Column::Id)
        .limit(limit)
        .all(at.conn())
        .await
        .map_err(db_error)
}

/// Returns the events of the range, ordered by session and `seq`; also those of sessions without a row.
pub(super) async fn of_sessions(at: &Snapshot, ids: Ids) -> Result<Vec<upload_event::Model>> {
    upload_event::Entity::find()
        .filter(ids.filter(Column::TenantId, Column::UploadSessionId))
        .order_by_asc(Column::UploadSessionId)
        .order_by_asc(Column::Seq)
        .all(at.conn())
        .await
        .map_err(db_error)
}

/// Returns the assets of the range.
pub(super) async fn assets_of_sessions(at: &Snapshot, ids: Ids) -> Result<Vec<asset::Model>> {
    asset::Entity::find()
        .filter(ids.filter(asset::Column::TenantId, asset::Column::UploadSessionId))
        .all(at.conn())
        .await
        .map_err(db_error)
}

/// Returns the first tombstones of the range.
pub(super) async fn tombstones(at: &Snapshot, ids: Ids, limit: u64) -> Result<Vec<upload_tombstone::Model>> {
    upload_tombstone::Entity::find()
        .filter(ids.filter(upload_tombstone::Column::TenantId, upload_tombstone::Column::UploadSessionId))
        .order_by_asc(upload_tombstone::Column::UploadSessionId)
        .limit(limit)
        .all(at.conn())
        .await
        .map_err(db_error)
}

/// Returns the places that events have from `from` to `until`, both included, in order.
pub(super) async fn positions(at: &Snapshot, from: i64, until: i64) -> Result<Vec<i64>> {
    upload_event::Entity::find()
        .select_only()
        .column(Column::Position)
        .filter(Column::Position.gte(from))
        .filter(Column::Position.lte(until))
        .order_by_asc(Column::Position)
        .into_tuple()
        .all(at.conn())
        .await
        .map_err(db_error)
}

/// Returns the highest place that an event has; 0 if none has one.
pub(super) async fn highest_position(at: &Snapshot) -> Result<i64> {
    let query =
        upload_event::Entity::find().select_only().column(Column::Position).filter(Column::Position.is_not_null());
    let highest = query.order_by_desc(Column::Position).limit(1).into_tuple().one(at.conn()).await;
    Ok(highest.map_err(db_error)?.unwrap_or(0))
}

/// Returns, for each session with an event that has no place yet, the highest `seq` of such an event. Without a tenant: of
/// all tenants.
pub(super) async fn unplaced(at: &Snapshot, tenant: Option<TenantId>) -> Result<HashMap<SessionId, i32>> {
    let mut query = upload_event::Entity::find()
        .select_only()
        .column(Column::UploadSessionId)
        .column_as(Column::Seq.max(), "seq")
        .filter(Column::Position.is_null())
        .group_by(Column::UploadSessionId);
    if let Some(tenant) = tenant {
        query = query.filter(Column::TenantId.eq(tenant));
    }
    let rows: Vec<(SessionId, i32)> = query.into_tuple().all(at.conn()).await.map_err(db_error)?;
    Ok(rows.into_iter().collect())
}

/// Returns the tombstones of sessions that were deleted at `since` or later, oldest first.
pub(super) async fn tombstones_since(
    at: &Snapshot,
    since: DateTime<Utc>,
    after: Option<&upload_tombstone::Model>,
    limit: u64,
) -> Result<Vec<upload_tombstone::Model>> {
    let query = upload_tombstone::Entity::find().filter(upload_tombstone::Column::DeletedAt.gte(since));
    by_age(query, after).limit(limit).all(at.conn()).await.map_err(db_error)
}

/// Returns the tombstones of sessions that were deleted before `before`, oldest first. Locks them until the transaction
/// ends, and skips those that others have locked.
pub(crate) async fn old_tombstones(
    tx: &Tx,
    before: DateTime<Utc>,
    after: Option<&upload_tombstone::Model>,
    limit: u64,
) -> Result<Vec<upload_tombstone::Model>> {
    let query = upload_tombstone::Entity::find().filter(upload_tombstone::Column::DeletedAt.lt(before));
    let query = by_age(query, after).limit(limit);
    query.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked).all(tx.conn()).await.map_err(db_error)
}

fn by_age(
    query: Select<upload_tombstone::Entity>,
    after: Option<&upload_tombstone::Model>,
) -> Select<upload_tombstone::Entity> {
    use upload_tombstone::Column::{DeletedAt, TenantId, UploadSessionId};
    let columns = [DeletedAt, TenantId, UploadSessionId];
    let mut query = columns.into_iter().fold(query, |query, column| query.order_by_asc(column));
    if let Some(after) = after {
        let place = Expr::tuple(columns.map(Expr::col));
        let values =
            [Expr::value(after.deleted_at), Expr::value(after.tenant_id), Expr::value(after.upload_session_id)];
        query = query.filter(place.gt(Expr::tuple(values)));
    }
    query
}

pub(crate) async fn delete_tombstones(tx: &Tx, of: &[(TenantId, SessionId)]) -> Result<()> {
    use upload_tombstone::Column::{TenantId, UploadSessionId};
    let ids = of.iter().map(|(tenant, session)| Expr::tuple([Expr::value(*tenant), Expr::value(*session)]));
    upload_tombstone::Entity::delete_many()
        .filter(Expr::tuple([Expr::col(TenantId), Expr::col(UploadSessionId)]).is_in(ids))
        .exec(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}

/// Inserts a block of pruned places unless it exists. Waits for another transaction that is inserting it.
pub(crate) async fn begin_pruned(tx: &Tx, row: pruned_places::Model) -> Result<()> {
    let keep = OnConflict::column(pruned_places::Column::Block).do_nothing().to_owned();
    let insert = pruned_places::Entity::insert(row.into_active_model()).on_conflict(keep).try_insert();
    insert.exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}

/// Returns a block of pruned places, locked until the transaction ends.
pub(crate) async fn lock_pruned(tx: &Tx, block: i64) -> Result<Option<pruned_places::Model>> {
    let query = pruned_places::Entity::find_by_id(block).lock(LockType::Update);
    query.one(tx.conn()).await.map_err(db_error)
}

/// Replaces the stored block, which [`lock_pruned`] has locked.
pub(crate) async fn keep_pruned(tx: &Tx, row: pruned_places::Model) -> Result<()> {
    use pruned_places::Column::{Block, Mac, Places};
    let replace = OnConflict::column(Block).update_columns([Places, Mac]).to_owned();
    let insert = pruned_places::Entity::insert(row.into_active_model()).on_conflict(replace);
    insert.exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}

pub(super) async fn pruned(at: &Snapshot, block: i64) -> Result<Option<pruned_places::Model>> {
    pruned_places::Entity::find_by_id(block).one(at.conn()).await.map_err(db_error)
}

/// Returns the number of the last block of pruned places.
pub(super) async fn last_block(at: &Snapshot) -> Result<Option<i64>> {
    let query = pruned_places::Entity::find().select_only().column(pruned_places::Column::Block);
    query.order_by_desc(pruned_places::Column::Block).limit(1).into_tuple().one(at.conn()).await.map_err(db_error)
}

/// Returns whether the session has a tombstone.
pub(super) async fn has_tombstone(at: &Snapshot, tenant: TenantId, session: SessionId) -> Result<bool> {
    let found = upload_tombstone::Entity::find_by_id((tenant, session)).one(at.conn()).await;
    Ok(found.map_err(db_error)?.is_some())
}

/// Returns the place of each event of these sessions of one tenant, in the order of `seq`; `None` if it has none yet.
pub(crate) async fn positions_of(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    sessions: &[SessionId],
) -> Result<BTreeMap<SessionId, Vec<Option<i64>>>> {
    let rows: Vec<(SessionId, Option<i64>)> = upload_event::Entity::find()
        .select_only()
        .columns([Column::UploadSessionId, Column::Position])
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::UploadSessionId.is_in(sessions.iter().copied()))
        .order_by_asc(Column::UploadSessionId)
        .order_by_asc(Column::Seq)
        .into_tuple()
        .all(conn)
        .await
        .map_err(db_error)?;
    let mut positions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (session, position) in rows {
        positions.entry(session).or_default().push(position);
    }
    Ok(positions)
}

/// Deletes all events of these sessions of one tenant.
pub(crate) async fn delete(tx: &Tx, tenant: TenantId, sessions: &[SessionId]) -> Result<()> {
    upload_event::Entity::delete_many()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::UploadSessionId.is_in(sessions.iter().copied()))
        .exec(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}
