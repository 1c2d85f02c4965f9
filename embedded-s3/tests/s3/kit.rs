//! Helpers that the stories share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use embedded_s3::{Config, Limits, Server};
use tempfile::TempDir;

pub const KEY_ID: &str = "AKIDTEST";
pub const SECRET: &str = "a secret for tests only";
pub const BUCKET: &str = "assets";
pub const MIB: usize = 1024 * 1024;
/// The minimum size of a part that is not the last.
pub const PART: usize = 5 * MIB;

/// A store in its own folder, with one bucket.
pub struct TestStore {
    pub dir: TempDir,
    server: Option<Server>,
    pub s3: Client,
    pub http: reqwest::Client,
}

impl TestStore {
    pub async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = embedded_s3::start(config(dir.path(), limits)).await.unwrap();
        let s3 = client(&format!("http://{}", server.addr()));
        Self { dir, server: Some(server), s3, http: reqwest::Client::new() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.as_ref().unwrap().addr())
    }

    pub fn addr(&self) -> std::net::SocketAddr {
        self.server.as_ref().unwrap().addr()
    }

    /// A client for the process around the store.
    pub fn own_client(&self) -> Client {
        client(&format!("http://{}", self.server.as_ref().unwrap().own_addr()))
    }

    /// Stops the server, and starts another over the same folder.
    pub async fn restart(&mut self) {
        self.stop(Duration::from_secs(5)).await;
        let server = embedded_s3::start(config(self.dir.path(), Limits::default())).await.unwrap();
        self.s3 = client(&format!("http://{}", server.addr()));
        self.server = Some(server);
    }

    pub async fn stop(&mut self, grace: Duration) {
        self.server.take().unwrap().shutdown(grace).await;
    }

    pub async fn put(&self, key: &str, body: impl Into<Vec<u8>>) -> String {
        let body = ByteStream::from(body.into());
        let put = self.s3.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap();
        put.e_tag.unwrap()
    }

    pub async fn get(&self, key: &str) -> Vec<u8> {
        let got = self.s3.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        got.body.collect().await.unwrap().to_vec()
    }

    pub async fn create(&self, key: &str) -> String {
        let created = self.s3.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
        created.upload_id.unwrap()
    }

    pub async fn part(&self, key: &str, id: &str, number: i32, body: impl Into<Vec<u8>>) -> CompletedPart {
        let body = ByteStream::from(body.into());
        let sent =
            self.s3.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number).body(body).send().await;
        CompletedPart::builder().part_number(number).e_tag(sent.unwrap().e_tag.unwrap()).build()
    }

    pub async fn complete(&self, key: &str, id: &str, parts: Vec<CompletedPart>) -> Result<String, String> {
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let done =
            self.s3.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).multipart_upload(list).send();
        done.await.map(|done| done.e_tag.unwrap()).map_err(code)
    }

    /// Counts the files in the folder of blobs. Waits for up to 2 seconds until there are `expected`: unlinks may be in
    /// progress.
    pub async fn blobs(&self, expected: usize) -> usize {
        for _ in 0..200 {
            if count_files(&self.dir.path().join("blobs")) == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        count_files(&self.dir.path().join("blobs"))
    }

    /// Sends a presigned request as a browser would, with a body.
    pub async fn send(&self, request: &PresignedRequest, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let mut builder = self.http.request(request.method().parse().unwrap(), request.uri());
        for (name, value) in request.headers() {
            if name != "content-length" {
                builder = builder.header(name, value);
            }
        }
        builder.body(body).send().await.unwrap()
    }
}

pub fn config(root: &Path, limits: Limits) -> Config {
    Config {
        root: root.to_owned(),
        access_key_id: KEY_ID.into(),
        secret_access_key: SECRET.into(),
        buckets: vec![BUCKET.into()],
        limits,
        ..Default::default()
    }
}

pub fn client(endpoint: &str) -> Client {
    client_of(endpoint, KEY_ID, SECRET)
}

pub fn client_of(endpoint: &str, id: &str, secret: &str) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(60))
        .operation_timeout(Duration::from_secs(120))
        .build();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(id, secret, None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .build();
    Client::from_conf(config)
}

/// The S3 code of an error; for an answer without a body, its status.
pub fn code<E: ProvideErrorMetadata>(error: SdkError<E>) -> String {
    let status = error.raw_response().map(|raw| raw.status().as_u16().to_string());
    let code = error.as_service_error().and_then(|error| error.code().map(str::to_owned));
    code.or(status).unwrap_or_else(|| "no answer".into())
}

/// The S3 code in the XML of an answer.
pub async fn code_of(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    (status, code.map(|(code, _)| code.to_owned()).unwrap_or(text))
}

pub fn minutes(minutes: u64) -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(minutes * 60)).unwrap()
}

/// Pseudo-random bytes, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn count_files(dir: &Path) -> usize {
    let mut files = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files += 1 }
        }
    }
    files
}
