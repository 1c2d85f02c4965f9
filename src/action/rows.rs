use entity::operator_action::{Column, Entity, Model};
use entity::{TenantId, operator_chain};
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect};

use crate::database::{DbErr, Tx, db_error};
use crate::error::{Error, Result};

/// The id of the only row.
pub(crate) const ID: i32 = 1;

/// Locks the end of the chain until the transaction ends, and returns it.
pub(super) async fn take_turn(tx: &Tx) -> Result<operator_chain::Model> {
    let query = operator_chain::Entity::find_by_id(ID).lock(LockType::Update);
    let lost = || Error::Db(DbErr::RecordNotFound("the row of operator_chain".to_owned()));
    query.one(tx.conn()).await.map_err(db_error)?.ok_or_else(lost)
}

/// Moves the end of the chain forward.
pub(super) async fn end_turn(tx: &Tx, last_seq: i64, head: Vec<u8>) -> Result<()> {
    operator_chain::Entity::update_many()
        .col_expr(operator_chain::Column::LastSeq, Expr::value(last_seq))
        .col_expr(operator_chain::Column::Head, Expr::value(head))
        .filter(operator_chain::Column::Id.eq(ID))
        .exec(tx.conn())
        .await
        .map(drop)
        .map_err(db_error)
}

pub(super) async fn insert(tx: &Tx, row: Model) -> Result<()> {
    let insert = Entity::insert(row.into_active_model());
    insert.exec_without_returning(tx.conn()).await.map(drop).map_err(db_error)
}

/// Returns up to `limit` actions before the number `before`, newest first.
pub(super) async fn page(
    conn: &impl ConnectionTrait,
    tenant: Option<TenantId>,
    before: Option<i64>,
    limit: u64,
) -> Result<Vec<Model>> {
    let mut query = Entity::find();
    if let Some(tenant) = tenant {
        query = query.filter(Column::TenantId.eq(tenant));
    }
    if let Some(before) = before {
        query = query.filter(Column::Seq.lt(before));
    }
    query.order_by_desc(Column::Seq).limit(limit).all(conn).await.map_err(db_error)
}
