//! The presigner of the AWS SDK, with which the server's own presigner is compared.

use std::hint::black_box;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_s3::presigning::PresigningConfig;

pub const KEY: &str = "temp/uploads/01997b7e-0000-7000-8000-000000000000/original";
/// As long as the upload ids of AWS.
pub const UPLOAD_ID: &str = "VXBsb2FkIElEIGZvciBlbHZpbmcncyBteS1tb3ZpZS5tMnRzIHVwbG9hZA_VXBsb2FkIElEIGZvciBlbHZpbmcncyBteS1tb3ZpZS5tMnRz_0123456789abcdef";
pub const TTL: Duration = Duration::from_secs(900);
pub const PART_BYTES: u32 = 8 << 20;

pub fn client(session_token: Option<String>) -> Client {
    let credentials = Credentials::new(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        session_token,
        None,
        "bench",
    );
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(credentials)
        .build();
    Client::from_conf(config)
}

/// Presigns one URL for each of `count` parts.
pub async fn presign(sdk: &Client, count: u32) {
    let mut urls = Vec::new();
    for number in 1..=count {
        let request = sdk.upload_part().bucket("uploads").key(KEY).upload_id(UPLOAD_ID);
        let request = request.part_number(number.try_into().unwrap()).content_length(PART_BYTES.into());
        let signed = request.presigned(PresigningConfig::expires_in(TTL).unwrap()).await.unwrap();
        urls.push(signed.uri().to_owned());
    }
    assert_eq!(black_box(urls).len(), count as usize);
}
