//! The stores that the tests run on, each with a bucket of its own.
//!
//! Garage is found by `QUAYMASTER_TEST_S3_*`, or started where `GARAGE_BIN` names its binary. The output says which
//! stores a run had.

use std::any::Any;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;
use std::{env, fs};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use quaymaster::settings::{self, Provider, ProvisionStrategy, Secret};
use quaymaster::storage::{Location, Storage};
use tempfile::TempDir;

const ROOT_DOMAIN: &str = "s3.localhost";

/// A store that is really there.
pub struct Store {
    pub name: &'static str,
    pub settings: settings::Storage,
    pub storage: Storage,
    /// The tests' own way in.
    pub s3: aws_sdk_s3::Client,
    pub http: reqwest::Client,
    /// Under which the store takes a bucket's name as a subdomain, where the tests have said so to it.
    pub root_domain: Option<&'static str>,
    /// What the store runs in, and ends with.
    _process: Box<dyn Any>,
}

impl Store {
    pub fn at(&self, key: &str) -> Location {
        Location { bucket: self.storage.bucket().to_owned(), key: key.to_owned() }
    }

    pub async fn put(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        let request = headers.iter().fold(self.http.put(url), |request, (name, value)| request.header(*name, value));
        request.body(body).send().await.unwrap()
    }

    /// Puts a part and says what ETag it got.
    pub async fn put_part(&self, url: &str, body: Vec<u8>) -> String {
        let answer = self.put(url, &[], body).await;
        assert_eq!(answer.status(), 200, "{}: {}", self.name, answer.text().await.unwrap());
        answer.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned()
    }

    async fn new(name: &'static str, settings: settings::Storage, process: impl Any) -> Self {
        let s3 = client(&settings);
        s3.create_bucket().bucket(settings.bucket.as_deref().unwrap()).send().await.unwrap();
        let storage = Storage::connect(&settings).await.unwrap();
        Self {
            name,
            settings,
            storage,
            s3,
            http: reqwest::Client::new(),
            root_domain: None,
            _process: Box::new(process),
        }
    }
}

/// The embedded store, and Garage where this run has one.
pub async fn each_store(story: impl AsyncFn(&Store)) {
    let mut ran = Vec::new();
    for store in [Some(embedded().await), garage().await].into_iter().flatten() {
        story(&store).await;
        ran.push(store.name);
    }
    // Past the harness, which keeps what a passing test prints to itself.
    static SAID: Once = Once::new();
    let line = format!("the storage tests run on: {}\n", ran.join(", "));
    SAID.call_once(|| io::stderr().write_all(line.as_bytes()).unwrap());
}

async fn embedded() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let config = embedded_s3::Config {
        root: folder.path().join("store"),
        access_key_id: "AKIDEMBEDDED".to_owned(),
        secret_access_key: "a-long-random-secret".to_owned(),
        ..Default::default()
    };
    let server = embedded_s3::start(config.clone()).await.unwrap();
    let endpoint = format!("http://{}", server.addr());
    let settings = settings(Provider::Embedded, &endpoint, &config.access_key_id, &config.secret_access_key);
    Store::new("embedded", settings, (server, folder)).await
}

async fn garage() -> Option<Store> {
    if let Ok(endpoint) = env::var("QUAYMASTER_TEST_S3_ENDPOINT") {
        let set = |name: &str| env::var(format!("QUAYMASTER_TEST_S3_{name}")).unwrap();
        let settings = settings(Provider::Garage, &endpoint, &set("ACCESS_KEY"), &set("SECRET_KEY"));
        return Some(Store::new("garage", settings::Storage { region: Some(set("REGION")), ..settings }, ()).await);
    }
    let garage = Garage::start(&env::var("GARAGE_BIN").ok()?).await;
    let settings = settings(Provider::Garage, &garage.endpoint, &garage.key, &garage.secret);
    let store = Store::new("garage", settings, garage).await;
    Some(Store { root_domain: Some(ROOT_DOMAIN), ..store })
}

/// Settings for a store in path style, with a new bucket's name and the defaults for the rest.
pub fn settings(provider: Provider, endpoint: &str, key: &str, secret: &str) -> settings::Storage {
    settings::Storage {
        provider: Some(provider),
        bucket: Some(format!("storage-{}", uuid::Uuid::new_v4())),
        region: None,
        endpoint: Some(endpoint.to_owned()),
        public_endpoint: None,
        access_key_id: Some(key.to_owned()),
        secret_access_key: Some(Secret::new(secret)),
        session_token: None,
        path_style: None,
        provision_strategy: ProvisionStrategy::Shared,
        connect_timeout_secs: 3,
        read_timeout_secs: 30,
        attempt_timeout_secs: 60,
        max_attempts: 3,
        max_parts: None,
        min_part_bytes: None,
        max_part_bytes: None,
        max_object_bytes: None,
        max_copy_bytes: None,
    }
}

/// An SDK client of the tests' own, with the same credential and region.
pub fn client(settings: &settings::Storage) -> aws_sdk_s3::Client {
    let key = settings.access_key_id.as_deref().unwrap();
    let secret = settings.secret_access_key.as_ref().unwrap().expose();
    let token = settings.session_token.as_ref().map(|token| token.expose().to_owned());
    let region = settings.region.clone().unwrap_or_else(|| match settings.provider {
        Some(Provider::Garage) => "garage".to_owned(),
        _ => "us-east-1".to_owned(),
    });
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(settings.endpoint.as_deref().unwrap())
        .region(Region::new(region))
        .credentials_provider(Credentials::new(key, secret, token, None, "tests"))
        .force_path_style(settings.path_style != Some(false))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// A Garage of one node in a temporary folder. Dropped, it ends.
struct Garage {
    process: Child,
    endpoint: String,
    key: String,
    secret: String,
    _folder: TempDir,
}

impl Garage {
    async fn start(binary: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let (s3, rpc) = (free_port(), free_port());
        let hex = |bytes: usize| {
            hex::encode([uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes).concat())[..2 * bytes]
                .to_owned()
        };
        let config = format!(
            "metadata_dir = \"{path}/meta\"\ndata_dir = \"{path}/data\"\ndb_engine = \"lmdb\"\n\
             replication_factor = 1\nrpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
             rpc_secret = \"{}\"\n[s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\n\
             root_domain = \".{ROOT_DOMAIN}\"\n",
            hex(32)
        );
        let file = folder.path().join("garage.toml");
        fs::write(&file, config).unwrap();
        let (key, secret) = (format!("GK{}", hex(12)), hex(32));
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(binary)
            .arg("-c")
            .arg(&file)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", &key)
            .env("GARAGE_DEFAULT_SECRET_KEY", &secret)
            .env("GARAGE_DEFAULT_BUCKET", "default")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut garage = Self { process, endpoint: format!("http://127.0.0.1:{s3}"), key, secret, _folder: folder };
        garage.allow_buckets(binary).await;
        garage
    }

    /// Asks until the server answers: then the key exists, and may make buckets.
    async fn allow_buckets(&mut self, binary: &str) {
        let file = self._folder.path().join("garage.toml");
        for _ in 0..300 {
            let mut allow = Command::new(binary);
            allow.arg("-c").arg(&file).args(["key", "allow", "--create-bucket", &self.key]);
            if allow.output().unwrap().status.success() {
                return;
            }
            assert!(self.process.try_wait().unwrap().is_none(), "garage ended: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("garage did not start: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self._folder.path().join("log")).unwrap()
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
