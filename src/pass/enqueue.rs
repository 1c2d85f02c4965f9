use entity::{JobId, Pass};

use super::{Options, PassRequest};
use crate::action;
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::Result;
use crate::jobs;

/// Enqueues a pass for a worker. Returns `None` if the pass is already running or queued in any process.
///
/// # Errors
/// The database does not answer.
pub async fn enqueue(engine: &Engine, pass: Pass, options: Options, actor: &Actor) -> Result<Option<JobId>> {
    let request = PassRequest::by_hand(pass, options, actor);
    let tx = engine.db.begin().await?;
    let Some(id) = jobs::enqueue(engine, &tx, &request.job(engine.clock.now())).await? else { return Ok(None) };
    action::record(engine, &tx, actor, request.act(id)).await?;
    tx.commit().await?;
    Ok(Some(id))
}
