use chrono::{DateTime, Utc};
use entity::deployment::{ActiveModel, Entity};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait};
use uuid::Uuid;

use crate::database::{Database, db_error};
use crate::error::Result;

/// The one row's.
const ID: i32 = 1;

pub(super) async fn find(conn: &impl ConnectionTrait) -> Result<Option<Uuid>> {
    let row = Entity::find_by_id(ID).one(conn).await.map_err(db_error)?;
    Ok(row.map(|row| row.deployment_id))
}

/// Inserts a new id unless there is one.
pub(super) async fn insert(db: &Database, now: DateTime<Utc>) -> Result<()> {
    let row = ActiveModel { id: Set(ID), deployment_id: Set(Uuid::now_v7()), created_at: Set(now) };
    let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned()).try_insert();
    insert.exec_without_returning(db.write_conn()).await.map(drop).map_err(db_error)
}
