use crate::engine::Engine;
use crate::storage;

/// Makes a bucket of the embedded store ready for browsers: creates it if it is missing, and lets the pages of
/// `cors.allowed_origins` send to it. Buckets of any other store are set up by their owners.
///
/// # Errors
/// The store failed; the next start of the server makes the bucket ready too.
pub async fn prepare_bucket(engine: &Engine, bucket: &str) -> Result<(), storage::Error> {
    if engine.settings.storage.bucket.is_some() {
        return Ok(());
    }
    engine.storage.create_bucket(bucket).await?;
    engine.storage.set_cors(bucket, &engine.settings.cors.allowed_origins).await
}
