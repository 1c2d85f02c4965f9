use std::collections::BTreeMap;

use entity::upload_event::{self, ActiveModel, Column};
use entity::{SessionId, TenantId};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::Entry;
use crate::database::{Tx, db_error};
use crate::error::Result;

/// Event number `seq` of a session, whose row the same transaction has moved on.
pub(crate) async fn insert(
    tx: &Tx,
    tenant: TenantId,
    session: SessionId,
    seq: i32,
    entry: &Entry<'_>,
    mac: Vec<u8>,
) -> Result<()> {
    let row = ActiveModel {
        tenant_id: Set(tenant),
        upload_session_id: Set(session),
        seq: Set(seq),
        at: Set(entry.at),
        event: Set(entry.event.to_owned()),
        from_status: Set(entry.from),
        to_status: Set(entry.to),
        actor: Set(entry.actor.to_owned()),
        reason: Set(entry.reason),
        details: Set(entry.details.clone()),
        mac: Set(mac),
        position: Set(None),
    };
    upload_event::Entity::insert(row).exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}

/// The session's events, oldest first. A session has a handful; the bound is there so that no query is without one.
pub(crate) async fn of_session(
    conn: &impl ConnectionTrait,
    tenant: TenantId,
    session: SessionId,
) -> Result<Vec<upload_event::Model>> {
    upload_event::Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::UploadSessionId.eq(session))
        .order_by_asc(Column::Seq)
        .limit(10_000)
        .all(conn)
        .await
        .map_err(db_error)
}

/// The place that each event of these sessions of one tenant has in the order of all; `None` where it has none yet.
pub(crate) async fn positions(
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
