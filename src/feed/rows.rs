use chrono::{DateTime, Utc};
use entity::upload_event::{self, Column};
use entity::upload_session::{self, Status};
use entity::{AssetId, BrandId, SessionId, TenantId, feed};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, JoinType, QueryFilter, QueryOrder,
    QuerySelect, RelationDef, Statement,
};

use crate::database::{DbErr, Tx, db_error};
use crate::error::{Error, Result};
use crate::event::rows::CHANNEL;

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
pub(crate) async fn last_position(conn: &impl ConnectionTrait) -> Result<i64> {
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
