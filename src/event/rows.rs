use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use entity::upload_event::{self, ActiveModel, Column};
use entity::upload_session::{self, Column as SessionColumn};
use entity::{SessionId, TenantId, pruned_places, upload_tombstone};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
    Select, UpdateMany,
};

use crate::database::{Tx, db_error, ids, values};
use crate::error::Result;
use crate::keys::{Entry, Link};

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
    tx.notify_after(CHANNEL);
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

pub(crate) fn by_age(
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

/// Returns the UPDATE that advances a session to its next event. Matches nothing if an event was added since `seen` was
/// read.
pub(crate) fn advancing(seen: &upload_session::Model, link: &Link) -> UpdateMany<upload_session::Entity> {
    upload_session::Entity::update_many()
        .col_expr(SessionColumn::EventSeq, Expr::value(seen.event_seq + 1))
        .col_expr(SessionColumn::ChainHead, Expr::value(link.head.clone()))
        .filter(SessionColumn::TenantId.eq(seen.tenant_id))
        .filter(SessionColumn::Id.eq(seen.id))
        .filter(SessionColumn::EventSeq.eq(seen.event_seq))
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
pub(crate) async fn advance(
    tx: &Tx,
    seen: &upload_session::Model,
    link: &Link,
    mark: Mark,
) -> Result<Option<upload_session::Model>> {
    let update = advancing(seen, link);
    let update = match mark {
        Mark::Nothing => update,
        Mark::Cleared(at) => update
            .col_expr(SessionColumn::StorageClearedAt, Expr::value(at))
            .filter(SessionColumn::StorageClearedAt.is_null()),
        Mark::Tried(at) => update
            .col_expr(SessionColumn::UpdatedAt, Expr::value(at))
            .col_expr(SessionColumn::ClearFailedAt, Expr::col(SessionColumn::ClearFailedAt).if_null(at)),
    };
    let advanced = update.exec_with_returning(tx.conn()).await.map_err(db_error)?;
    Ok(advanced.into_iter().next())
}

/// Like [`advance`], for many sessions by one statement, without a mark. Each must be named once. Returns those that
/// advanced.
pub(crate) async fn advance_all(tx: &Tx, advances: &[(&upload_session::Model, &Link)]) -> Result<HashSet<SessionId>> {
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

/// Returns the session's row.
pub(super) async fn session(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    session: SessionId,
) -> Result<Option<upload_session::Model>> {
    upload_session::Entity::find_by_id((tenant, session)).one(conn).await.map_err(db_error)
}
