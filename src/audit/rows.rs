use std::collections::HashMap;

use chrono::{DateTime, Utc};
use entity::upload_event::{self, Column};
use entity::{
    SessionId, TenantId, asset, operator_action, operator_chain, pruned_places, tenant, upload_session,
    upload_tombstone,
};
use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::action::{self, Action};
use crate::database::{Snapshot, db_error};
use crate::error::Result;
use crate::event::rows::by_age;

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

/// Returns the last assigned number and the head of the chain.
pub(super) async fn end_of_actions(at: &Snapshot) -> Result<Option<(i64, Vec<u8>)>> {
    let row = operator_chain::Entity::find_by_id(action::rows::ID).one(at.conn()).await.map_err(db_error)?;
    Ok(row.map(|row| (row.last_seq, row.head)))
}

/// Returns the number of actions.
pub(super) async fn count_actions(at: &Snapshot) -> Result<u64> {
    operator_action::Entity::find().count(at.conn()).await.map_err(db_error)
}

/// Returns up to `limit` actions after the number `after`, oldest first.
pub(super) async fn actions_after(at: &Snapshot, after: Option<i64>, limit: u64) -> Result<Vec<Action>> {
    let mut query = operator_action::Entity::find();
    if let Some(after) = after {
        query = query.filter(operator_action::Column::Seq.gt(after));
    }
    query.order_by_asc(operator_action::Column::Seq).limit(limit).all(at.conn()).await.map_err(db_error)
}
