//! The queues of the passes: which sessions each has to look at, in its order.

use chrono::{DateTime, Utc};
use entity::asset;
use entity::upload_session::{Column, Entity, Status};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, Query, SelectStatement};
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};

use super::Session;
use crate::database::{Tx, db_error};
use crate::error::Result;
use crate::storage::UPLOADS;

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
pub(in crate::session) async fn next(
    conn: &impl ConnectionTrait,
    queue: Queue,
    after: Option<&Session>,
    limit: u64,
) -> Result<Vec<Session>> {
    queued(queue, after, limit).all(conn).await.map_err(db_error)
}

/// Like [`next`], with the rows locked until the transaction ends, and without rows that others have locked. A write
/// transaction of SQLite has the whole database to itself.
pub(in crate::session) async fn next_locked(
    tx: &Tx,
    queue: Queue,
    after: Option<&Session>,
    limit: u64,
) -> Result<Vec<Session>> {
    let query = queued(queue, after, limit).lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    query.all(tx.conn()).await.map_err(db_error)
}
