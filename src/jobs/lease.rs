use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{Job, rows};
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// A job that this process has claimed, and holds as long as its heartbeats come in time.
#[derive(Clone, Debug)]
pub struct Lease {
    pub job: Job,
    pub(super) token: Uuid,
}

impl Lease {
    /// Ends the job in the transaction that commits the job's changes.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if another worker has claimed the job meanwhile: the transaction must not be committed.
    pub async fn settle(&self, tx: &Tx) -> Result<()> {
        if rows::delete(tx.conn(), self).await? { Ok(()) } else { Err(Error::LeaseLost) }
    }

    /// Runs `work` and sends heartbeats meanwhile. The token given to `work` is cancelled with `stop`, and when the lease is
    /// lost. After a lost lease `work` may continue, but it can no longer settle.
    pub async fn run_with_heartbeat<T>(
        &self,
        engine: &Engine,
        stop: &CancellationToken,
        work: impl AsyncFnOnce(&CancellationToken) -> T,
    ) -> T {
        let own = stop.child_token();
        tokio::select! {
            answer = work(&own) => answer,
            never = self.keep(engine, &own) => match never {},
        }
    }

    /// Extends the lease three times per lease length, until it is lost.
    async fn keep(&self, engine: &Engine, own: &CancellationToken) -> Infallible {
        let length = Duration::from_secs(engine.settings.jobs.lease_secs);
        let mut ours_until = Instant::now() + length;
        loop {
            sleep(length / 3).await;
            let asked_at = Instant::now();
            match rows::extend(engine, self).await {
                Ok(true) => ours_until = asked_at + length,
                Ok(false) => break,
                Err(error) if Instant::now() < ours_until => {
                    debug!(job.id = %self.job.id, %error, "a heartbeat was not recorded");
                }
                // No heartbeat was recorded in time: another worker may hold the job by now.
                Err(_) => break,
            }
        }
        warn!(job.id = %self.job.id, job.kind = self.job.kind, "the job was lost to another worker");
        own.cancel();
        std::future::pending().await
    }
}
