use chrono::{DateTime, Utc};
use entity::deployment::{ActiveModel, Column, Entity};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use crate::database::{Database, db_error};
use crate::error::Result;

/// The id of the only row.
const ID: i32 = 1;

pub(super) async fn find(conn: &impl ConnectionTrait) -> Result<Option<Uuid>> {
    let row = Entity::find_by_id(ID).one(conn).await.map_err(db_error)?;
    Ok(row.map(|row| row.deployment_id))
}

/// Inserts a new id unless there is one.
pub(super) async fn insert(db: &Database, now: DateTime<Utc>) -> Result<()> {
    let deployment_id = Set(Uuid::now_v7());
    let row = ActiveModel { id: Set(ID), deployment_id, created_at: Set(now), written_at: Set(None) };
    let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned()).try_insert();
    insert.exec_without_returning(db.write_conn()).await.map(drop).map_err(db_error)
}

/// Commits a write, to find out whether the database accepts commits.
pub(super) async fn try_write(db: &Database, now: DateTime<Utc>) -> Result<()> {
    let written = Entity::update_many()
        .col_expr(Column::WrittenAt, Expr::value(now))
        .filter(Column::Id.eq(ID))
        .exec(db.write_conn());
    written.await.map(drop).map_err(db_error)
}
