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
