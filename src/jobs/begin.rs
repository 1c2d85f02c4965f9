use super::{Lease, NewJob, rows};
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::Result;

/// Puts a job into the queue that this process works on as soon as the transaction is committed; `None` where its dedupe
/// key is taken. If the process dies over it, any worker takes the job up when the lease ends. The caller runs its work in
/// [`Lease::held`], and ends it by [`Lease::settle`].
pub async fn begin(engine: &Engine, tx: &Tx, job: &NewJob) -> Result<Option<Lease>> {
    rows::insert_claimed(engine, tx, job).await
}
