//! What each kind of job does: one match arm per kind.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{Ending, Kind, Lease};
use crate::engine::Engine;
use crate::error::Result;
use crate::{asset, pass};

pub(super) fn work<'a>(
    engine: &'a Engine,
    lease: &'a Lease,
    stop: &'a CancellationToken,
) -> BoxFuture<'a, Result<Ending>> {
    async move {
        match Kind::named(&lease.job.kind) {
            Some(Kind::Promote | Kind::PromoteByParts) => {
                asset::promote_job(engine, &lease.job).await.map(|()| Ending::Done)
            }
            Some(Kind::DetectAbandoned | Kind::Cleanup | Kind::Orphans | Kind::Reconcile) => {
                pass::work(engine, lease, stop).await
            }
            // Not reached: a worker claims only the kinds that it knows.
            None => Ok(Ending::HandedOver),
        }
    }
    .boxed()
}
