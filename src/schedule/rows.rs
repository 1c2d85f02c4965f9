use chrono::{DateTime, Utc};
use entity::schedule::{ActiveModel, Column, Entity};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, Condition, EntityTrait, QueryFilter};

use crate::clock::CLOCKS_DIFFER_MAX;
use crate::database::{Tx, db_error};
use crate::engine::Engine;
use crate::error::Result;

/// Takes a slot. Returns `false` if this or a later slot was taken already, or if the schedule is seen for the first time: a
/// new deployment has missed nothing. A slot taken in the future, before a clock was set back, does not count.
pub(super) async fn take(tx: &Tx, name: &str, slot: DateTime<Utc>, now: DateTime<Utc>) -> Result<bool> {
    let in_future = Column::LastSlot.gt(now + CLOCKS_DIFFER_MAX);
    let taken = Entity::update_many()
        .col_expr(Column::LastSlot, Expr::value(slot))
        .filter(Column::Name.eq(name))
        .filter(Condition::any().add(Column::LastSlot.lt(slot)).add(in_future))
        .exec(tx.conn())
        .await
        .map_err(db_error)?;
    if taken.rows_affected > 0 {
        return Ok(true);
    }
    let row = ActiveModel { name: Set(name.to_owned()), last_slot: Set(slot) };
    let insert = Entity::insert(row).on_conflict(OnConflict::column(Column::Name).do_nothing().to_owned());
    insert.exec_without_returning(tx.conn()).await.map_err(db_error)?;
    Ok(false)
}

pub(super) async fn last_slot(engine: &Engine, name: &str) -> Result<Option<DateTime<Utc>>> {
    let row = Entity::find_by_id(name).one(engine.db.conn()).await.map_err(db_error)?;
    Ok(row.map(|row| row.last_slot))
}
