use chrono::{DateTime, Utc};
use entity::upload_event::{self, ActiveModel, Column};
use entity::upload_session;
use entity::{SessionId, TenantId};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;

use crate::database::{Tx, db_error};
use crate::error::Result;
use crate::session::Change;

/// The first event of a session that was just inserted.
pub(crate) async fn append_initiate(tx: &Tx, session: &upload_session::Model) -> Result<()> {
    append(
        tx,
        ActiveModel {
            event: Set("initiate".to_owned()),
            from_status: Set(None),
            to_status: Set(Some(session.status)),
            actor: Set(session.created_by.clone()),
            reason: Set(None),
            ..of(session, session.created_at)
        },
    )
    .await
}

/// What a transition did; `session` is the row after it.
pub(crate) async fn append_move(
    tx: &Tx,
    session: &upload_session::Model,
    change: &Change<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    // A move into UPLOADING comes from one state only; the others may come from two, told apart by what opening left.
    let from = match change.event.row().from {
        [only] => *only,
        _ if session.version > 2 => upload_session::Status::Uploading,
        _ => upload_session::Status::Initiating,
    };
    append(
        tx,
        ActiveModel {
            event: Set(change.event.name().to_owned()),
            from_status: Set(Some(from)),
            to_status: Set(Some(session.status)),
            actor: Set(change.actor.to_owned()),
            reason: Set(change.reason),
            ..of(session, now)
        },
    )
    .await
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

fn of(session: &upload_session::Model, at: DateTime<Utc>) -> ActiveModel {
    ActiveModel {
        tenant_id: Set(session.tenant_id),
        upload_session_id: Set(session.id),
        seq: Set(session.event_seq),
        at: Set(at),
        details: Set(json!({})),
        ..ActiveModel::default()
    }
}

async fn append(tx: &Tx, event: ActiveModel) -> Result<()> {
    upload_event::Entity::insert(event).exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}
