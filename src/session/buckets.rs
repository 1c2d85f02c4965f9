use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{error, warn};

use super::rows;
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};
use crate::settings::ProvisionStrategy;
use crate::{deployment, tenant};

/// How long a start waits for its buckets to be marked. The passes mark the rest.
const MARK_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns every bucket in use: the shared one, the tenants' own, and those of sessions that are not ended and cleared.
pub async fn buckets(engine: &Engine) -> Result<BTreeSet<String>> {
    let mut buckets: BTreeSet<String> = tenant::buckets(engine).await?.into_iter().collect();
    if engine.settings.storage.provision_strategy == ProvisionStrategy::Shared {
        buckets.insert(engine.storage.bucket().to_owned());
    }
    buckets.extend(rows::buckets(engine.db.search_conn()).await?);
    Ok(buckets)
}

/// Marks every bucket in use, best effort: a start does not depend on the store.
pub async fn mark_buckets(engine: &Engine) {
    if tokio::time::timeout(MARK_TIMEOUT, mark_each(engine)).await.is_err() {
        warn!("the buckets could not be marked in time; the first pass will mark them");
    }
}

async fn mark_each(engine: &Engine) {
    let buckets = match buckets(engine).await {
        Ok(buckets) => buckets,
        Err(error) => {
            let error = with_causes(&error);
            return warn!(error, "the buckets to be marked could not be read; the first pass will mark them");
        }
    };
    for bucket in buckets {
        match deployment::must_own(engine, &bucket).await {
            Ok(()) => {}
            Err(error @ Error::ForeignBucket { .. }) => error!(%error, "nothing will be deleted in this bucket"),
            Err(error) => {
                warn!(bucket, error = with_causes(&error), "the bucket was not marked; the first pass will mark it")
            }
        }
    }
}
