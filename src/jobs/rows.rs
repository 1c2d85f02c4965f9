use entity::JobId;
use entity::job::{ActiveModel, Entity};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, EntityTrait, TryInsertResult};

use super::NewJob;
use crate::database::{Tx, db_error};
use crate::engine::Engine;
use crate::error::Result;

/// Puts a job into the queue, in the transaction that makes it necessary; `None` where its dedupe key is taken.
pub async fn enqueue(engine: &Engine, tx: &Tx, job: &NewJob) -> Result<Option<JobId>> {
    let now = engine.clock.now();
    let id = JobId::new();
    let row = ActiveModel {
        id: Set(id),
        kind: Set(job.kind.name().to_owned()),
        payload: Set(job.payload.clone()),
        priority: Set(job.priority),
        dedupe_key: Set(job.dedupe_key.clone()),
        attempts: Set(0),
        max_attempts: Set(i32::try_from(engine.settings.jobs.max_attempts).unwrap_or(i32::MAX)),
        run_at: Set(job.run_at),
        lease_token: Set(None),
        last_error: Set(None),
        dead_at: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
    };
    let insert = Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned()).try_insert();
    match insert.exec_without_returning(tx.conn()).await.map_err(db_error)? {
        TryInsertResult::Inserted(1..) => Ok(Some(id)),
        TryInsertResult::Inserted(_) | TryInsertResult::Conflicted | TryInsertResult::Empty => Ok(None),
    }
}
