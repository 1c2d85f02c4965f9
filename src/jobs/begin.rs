use super::{Lease, NewJob, rows};
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::Result;

/// Enqueues a job that this process has already claimed and works on once the transaction is committed. Returns `None` if
/// its dedupe key is taken. If the process dies during the work, any worker can claim the job when the lease expires. The
/// caller runs the work in [`Lease::run_with_heartbeat`] and ends the job with [`Lease::settle`].
pub async fn begin(engine: &Engine, tx: &Tx, job: &NewJob) -> Result<Option<Lease>> {
    rows::insert_claimed(engine, tx, job).await
}
