//! Buckets and their CORS rules.

use s3s::dto::*;
use s3s::{S3ErrorCode, s3_error};

use crate::cors;
use crate::fault::Result;
use crate::headers::timestamp;
use crate::rows::{self, now_ms};
use crate::store::{Store, bucket_id};

impl Store {
    pub async fn create_bucket(&self, input: CreateBucketInput) -> Result<CreateBucketOutput> {
        let store = self.clone();
        let name = input.bucket;
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            if !rows::bucket::insert(&mut tx, &name, now_ms()).await? {
                return Err(S3ErrorCode::BucketAlreadyOwnedByYou.into());
            }
            tx.commit().await?;
            Ok(CreateBucketOutput { location: Some(format!("/{name}")) })
        })
        .await
    }

    pub async fn delete_bucket(&self, input: DeleteBucketInput) -> Result<DeleteBucketOutput> {
        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            let id = bucket_id(&mut tx, &input.bucket).await?;
            if !rows::bucket::is_empty(&mut tx, id).await? {
                return Err(
                    s3_error!(BucketNotEmpty, "The bucket holds objects, or uploads that are still open.").into()
                );
            }
            rows::bucket::delete(&mut tx, id).await?;
            tx.commit().await?;
            store.cors.set(&input.bucket, None);
            Ok(DeleteBucketOutput {})
        })
        .await
    }

    pub async fn head_bucket(&self, input: HeadBucketInput) -> Result<HeadBucketOutput> {
        bucket_id(&mut *self.rows.reader().await?, &input.bucket).await?;
        Ok(HeadBucketOutput { bucket_region: Some(self.region.clone()), ..Default::default() })
    }

    pub async fn get_bucket_location(&self, input: GetBucketLocationInput) -> Result<GetBucketLocationOutput> {
        bucket_id(&mut *self.rows.reader().await?, &input.bucket).await?;
        // S3 returns no location for us-east-1, its oldest region.
        let region = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(GetBucketLocationOutput { location_constraint: region })
    }

    /// Returns an empty answer, as S3 does for a bucket whose versioning was never enabled.
    pub async fn get_bucket_versioning(&self, input: GetBucketVersioningInput) -> Result<GetBucketVersioningOutput> {
        bucket_id(&mut *self.rows.reader().await?, &input.bucket).await?;
        Ok(GetBucketVersioningOutput::default())
    }

    pub async fn list_buckets(&self, input: ListBucketsInput) -> Result<ListBucketsOutput> {
        let all = rows::bucket::all(&mut *self.rows.reader().await?).await?;
        let prefix = input.prefix.unwrap_or_default();
        let buckets = all
            .into_iter()
            .filter(|bucket| bucket.name.starts_with(&prefix))
            .map(|bucket| Bucket {
                name: Some(bucket.name),
                creation_date: Some(timestamp(bucket.created_ms)),
                ..Default::default()
            })
            .collect();
        Ok(ListBucketsOutput { buckets: Some(buckets), ..Default::default() })
    }

    pub async fn get_bucket_cors(&self, input: GetBucketCorsInput) -> Result<GetBucketCorsOutput> {
        bucket_id(&mut *self.rows.reader().await?, &input.bucket).await?;
        let rules = self
            .cors
            .of(&input.bucket)
            .ok_or_else(|| s3_error!(NoSuchCORSConfiguration, "The CORS configuration does not exist"))?;
        Ok(GetBucketCorsOutput { cors_rules: Some(rules.iter().map(cors::Rule::dto).collect()) })
    }

    pub async fn put_bucket_cors(&self, input: PutBucketCorsInput) -> Result<PutBucketCorsOutput> {
        let rules = cors::parse(input.cors_configuration.cors_rules)?;
        self.set_cors(input.bucket, Some(rules)).await?;
        Ok(PutBucketCorsOutput {})
    }

    pub async fn delete_bucket_cors(&self, input: DeleteBucketCorsInput) -> Result<DeleteBucketCorsOutput> {
        self.set_cors(input.bucket, None).await?;
        Ok(DeleteBucketCorsOutput {})
    }

    /// Writes only rules that differ from the current ones: a server sets them at each start, and must start on a full disk.
    async fn set_cors(&self, bucket: String, rules: Option<Vec<cors::Rule>>) -> Result<()> {
        bucket_id(&mut *self.rows.reader().await?, &bucket).await?;
        if self.cors.of(&bucket).as_deref() == rules.as_deref() {
            return Ok(());
        }
        let store = self.clone();
        self.detached(async move {
            let mut tx = store.rows.write().await?;
            if !rows::bucket::set_cors(&mut tx, &bucket, rules.as_deref()).await? {
                return Err(S3ErrorCode::NoSuchBucket.into());
            }
            tx.commit().await?;
            store.cors.set(&bucket, rules);
            Ok(())
        })
        .await
    }
}
