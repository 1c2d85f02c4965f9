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

/// A job that this process has, as long as it says so in time.
#[derive(Clone, Debug)]
pub struct Lease {
    pub job: Job,
    pub(super) token: Uuid,
}

impl Lease {
    /// Ends the job, in the transaction that holds what the job changes.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] where another worker has claimed the job meanwhile: the transaction must not be committed.
    pub async fn settle(&self, tx: &Tx) -> Result<()> {
        if rows::delete(tx.conn(), self).await? { Ok(()) } else { Err(Error::LeaseLost) }
    }

    /// Runs `work` and says meanwhile that this worker lives. The token that `work` is given is cancelled with `stop`,
    /// and when the lease is lost; what `work` does from then on is its own choice, but it cannot settle any more.
    pub async fn held<T>(
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

    /// Moves the end of the lease on, three times in its length, until it is lost.
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
                    debug!(job.id = %self.job.id, %error, "a sign of life was not recorded");
                }
                // Nobody could be told in time: another worker may have it by now.
                Err(_) => break,
            }
        }
        warn!(job.id = %self.job.id, job.kind = self.job.kind, "the job was lost to another worker");
        own.cancel();
        std::future::pending().await
    }
}
