use entity::JobKind;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::Result;
use crate::jobs::{Ending, Lease};
use crate::{asset, pass};

/// Does the work of a job.
pub fn job<'a>(engine: &'a Engine, lease: &'a Lease, stop: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async move {
        match JobKind::named(&lease.job.kind) {
            Some(JobKind::Promote | JobKind::PromoteByParts) => {
                asset::promote_job(engine, &lease.job).await.map(|()| Ending::Done)
            }
            Some(JobKind::Pass(_)) => pass::work(engine, super::pass, lease, stop).await,
            // Not reached: a worker claims only the kinds that it knows.
            None => Ok(Ending::HandedOver),
        }
    }
    .boxed()
}
