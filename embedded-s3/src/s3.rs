//! The calls of S3 that the store answers; `s3s` answers 501 to all others.

use async_trait::async_trait;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::store::Store;

/// `call: Input => Output`, for the calls that need nothing but their input.
macro_rules! calls {
    ($($call:ident: $input:ty => $output:ty;)+) => {
        #[async_trait]
        impl S3 for Store {
            $(async fn $call(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                Ok(S3Response::new(Store::$call(self, request.input).await?))
            })+

            async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                let S3Request { input, headers, trailing_headers, .. } = request;
                Ok(S3Response::new(Store::put_object(self, input, &headers, trailing_headers).await?))
            }

            async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
                Ok(S3Response::new(Store::get_object(self, request.input, &request.headers).await?))
            }

            async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
                Ok(S3Response::new(Store::head_object(self, request.input, &request.headers).await?))
            }

            async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
                Ok(S3Response::new(Store::copy_object(self, request.input, &request.headers).await?))
            }

            async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
                let S3Request { input, headers, trailing_headers, .. } = request;
                Ok(S3Response::new(Store::upload_part(self, input, &headers, trailing_headers).await?))
            }
        }
    };
}

calls! {
    create_bucket: CreateBucketInput => CreateBucketOutput;
    delete_bucket: DeleteBucketInput => DeleteBucketOutput;
    head_bucket: HeadBucketInput => HeadBucketOutput;
    list_buckets: ListBucketsInput => ListBucketsOutput;
    get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput;
    get_bucket_versioning: GetBucketVersioningInput => GetBucketVersioningOutput;
    get_bucket_cors: GetBucketCorsInput => GetBucketCorsOutput;
    put_bucket_cors: PutBucketCorsInput => PutBucketCorsOutput;
    delete_bucket_cors: DeleteBucketCorsInput => DeleteBucketCorsOutput;

    delete_object: DeleteObjectInput => DeleteObjectOutput;
    delete_objects: DeleteObjectsInput => DeleteObjectsOutput;
    list_objects: ListObjectsInput => ListObjectsOutput;
    list_object_versions: ListObjectVersionsInput => ListObjectVersionsOutput;
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output;

    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput;
    upload_part_copy: UploadPartCopyInput => UploadPartCopyOutput;
    list_parts: ListPartsInput => ListPartsOutput;
    list_multipart_uploads: ListMultipartUploadsInput => ListMultipartUploadsOutput;
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput;
}
