//! The two pairs that every story runs on: SQLite with the embedded store, PostgreSQL with Garage. Each app has a
//! database and a bucket of its own in them, and a fault proxy before each.

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection};
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

use super::lies::Lie;
use super::proxy::{Line, StoreProxy};
use super::server::EmbeddedStore;

/// Says which deployment a bucket belongs to; in every bucket from a server's start on.
pub const OWNER: &str = "temp/uploads/.owner";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    Embedded,
    Postgres,
}

/// Why a story cannot be told on these back ends.
#[derive(Debug)]
pub struct Skipped(pub &'static str);

/// The database, with the line to it that a story may cut.
#[derive(Debug)]
pub struct Database {
    /// What the server is told of it.
    pub env: (&'static str, String),
    /// The kit's own way to the rows, past the line.
    pub rows: DatabaseConnection,
    gone: Gone,
}

/// How a database goes away, and what cleans up after it.
#[derive(Debug)]
enum Gone {
    /// A file does not go away: somebody else keeps it locked for writing.
    Locked {
        url: String,
        lock: Mutex<Option<DatabaseConnection>>,
    },
    Cut {
        line: Line,
        name: String,
        admin: String,
    },
}

/// The bucket, with the proxy that the server reaches it through.
pub struct Store {
    faults: Option<StoreProxy>,
    pub bucket: String,
    /// The kit's own way to the bucket, past the proxy.
    pub s3: aws_sdk_s3::Client,
    pub env: Vec<(&'static str, String)>,
    embedded: Option<EmbeddedStore>,
    created: bool,
}

impl Database {
    pub async fn start(pair: Pair, folder: &Path) -> Self {
        match pair {
            Pair::Embedded => Self::sqlite(&folder.join("data")).await,
            Pair::Postgres => Self::postgres().await,
        }
    }

    async fn sqlite(data_dir: &Path) -> Self {
        std::fs::create_dir(data_dir).unwrap();
        let url = format!("sqlite://{}?mode=rwc", data_dir.join("quaymaster.db").display());
        let env = ("QUAYMASTER_DATA_DIR", data_dir.to_str().expect("a temporary folder's name is UTF-8").to_owned());
        Self { env, rows: connect(&url).await, gone: Gone::Locked { url, lock: Mutex::default() } }
    }

    async fn postgres() -> Self {
        let admin = required("QUAYMASTER_TEST_POSTGRES");
        let name = format!("story_{}", Uuid::new_v4().simple());
        execute(&admin, &format!("CREATE DATABASE {name}")).await;
        let direct = on_database(&admin, &name);
        let line = Line::start(address_of(&direct, 5432).await).await;
        let mut url = direct.clone();
        url.set_ip_host(line.addr.ip()).unwrap();
        url.set_port(Some(line.addr.port())).unwrap();
        Self {
            env: ("DATABASE_URL", url.to_string()),
            rows: connect(direct.as_str()).await,
            gone: Gone::Cut { line, name, admin },
        }
    }

    /// From here on the database does nothing for the server: PostgreSQL is out of reach, SQLite's file is locked for
    /// writing by another process (its readers go on).
    pub async fn cut(&self) {
        match &self.gone {
            Gone::Cut { line, .. } => {
                line.cut();
                // Over sooner, an outage may cost each pooled connection one request (`database.rs`).
                tokio::time::sleep(Duration::from_millis(600)).await;
            }
            Gone::Locked { url, lock } => {
                let other = connect_with(url, 1).await;
                other.execute_unprepared("BEGIN EXCLUSIVE").await.unwrap();
                *lock.lock().await = Some(other);
            }
        }
    }

    /// From here on PostgreSQL stays connected and says nothing, see [`Line::silence`]; a file cannot.
    pub fn silence(&self) {
        let Gone::Cut { line, .. } = &self.gone else { panic!("a file does not fall silent") };
        line.silence();
    }

    /// The same on new connections alone, see [`Line::silence_new`].
    pub fn silence_new(&self) {
        let Gone::Cut { line, .. } = &self.gone else { panic!("a file does not fall silent") };
        line.silence_new();
    }

    /// One connection of the kit's own to PostgreSQL, for a lock that is held over several statements.
    pub async fn one_connection(&self) -> DatabaseConnection {
        connect_with(&self.past_the_line(), 1).await
    }

    /// The URL of PostgreSQL on a line that no story cuts.
    pub fn past_the_line(&self) -> String {
        let Gone::Cut { name, admin, .. } = &self.gone else { panic!("a file is not at the end of a line") };
        on_database(admin, name).to_string()
    }

    pub async fn heal(&self) {
        match &self.gone {
            Gone::Cut { line, .. } => line.heal(),
            Gone::Locked { lock, .. } => {
                if let Some(other) = lock.lock().await.take() {
                    other.execute_unprepared("ROLLBACK").await.unwrap();
                    other.close().await.unwrap();
                }
            }
        }
    }

    pub async fn remove(&self) {
        self.heal().await;
        self.rows.close_by_ref().await.unwrap();
        if let Gone::Cut { name, admin, .. } = &self.gone {
            execute(admin, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

fn on_database(admin: &str, name: &str) -> Url {
    let mut url = Url::parse(admin).expect("QUAYMASTER_TEST_POSTGRES is a URL");
    url.set_path(name);
    url
}

impl Store {
    pub async fn start(pair: Pair, folder: &Path) -> Self {
        let embedded = match pair {
            Pair::Embedded => Some(EmbeddedStore::start(&folder.join("store")).await),
            Pair::Postgres => None,
        };
        let (endpoint, region, access_key, secret_key) = match &embedded {
            Some(store) => (
                format!("http://{}", store.addr),
                "us-east-1".to_owned(),
                store.access_key_id.clone(),
                store.secret_access_key.clone(),
            ),
            None => (
                required("QUAYMASTER_TEST_S3_ENDPOINT"),
                required("QUAYMASTER_TEST_S3_REGION"),
                required("QUAYMASTER_TEST_S3_ACCESS_KEY"),
                required("QUAYMASTER_TEST_S3_SECRET_KEY"),
            ),
        };
        let s3 = aws_sdk_s3::Client::from_conf(
            aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(&endpoint)
                .region(Region::new(region.clone()))
                .credentials_provider(Credentials::new(&access_key, &secret_key, None, None, "tests"))
                .force_path_style(true)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .build(),
        );
        let named = env::var("QUAYMASTER_TEST_S3_BUCKET").ok().filter(|_| pair == Pair::Postgres);
        let created = named.is_none();
        let bucket = named.unwrap_or_else(|| format!("story-{}", Uuid::new_v4()));
        if created {
            s3.create_bucket().bucket(&bucket).send().await.unwrap();
        }
        let direct = Url::parse(&endpoint).expect("the store's endpoint is a URL");
        // A signature holds for one Host, and a real store knows itself by that: no proxy fits before it.
        let faults =
            if created { Some(StoreProxy::start(address_of(&direct, 80).await, s3.clone()).await) } else { None };
        if let (Some(faults), Some(lie)) = (&faults, Lie::of_this_run()) {
            faults.lie(lie);
        }
        let through = faults.as_ref().map_or_else(|| endpoint.clone(), |proxy| format!("http://{}", proxy.addr));
        let mut env = vec![
            ("AWS_BUCKET", bucket.clone()),
            ("AWS_REGION", region),
            ("AWS_ACCESS_KEY_ID", access_key),
            ("AWS_SECRET_ACCESS_KEY", secret_key),
            ("AWS_ENDPOINT_URL_S3", through),
            ("QUAYMASTER_STORAGE__PUBLIC_ENDPOINT", endpoint),
            ("QUAYMASTER_STORAGE__PATH_STYLE", "true".to_owned()),
        ];
        if pair == Pair::Postgres {
            let provider = env::var("QUAYMASTER_TEST_S3_PROVIDER").unwrap_or_else(|_| "garage".to_owned());
            env.push(("QUAYMASTER_STORAGE__PROVIDER", provider));
        }
        let store = Self { faults, bucket, s3, env, embedded, created };
        let (objects, uploads) = (store.everything().await, store.uploads().await);
        assert!(objects.is_empty() && uploads.is_empty(), "the bucket {} is not empty", store.bucket);
        store
    }

    /// The proxy before the store; a story that wants one ends here, as skipped, on a store that takes none.
    pub fn faults(&self) -> &StoreProxy {
        self.faults
            .as_ref()
            .unwrap_or_else(|| std::panic::resume_unwind(Box::new(Skipped("a real store takes no proxy"))))
    }

    pub fn heal(&self) {
        if let Some(faults) = &self.faults {
            faults.heal();
        }
    }

    /// Every key with its size, in order, but for the marker of the bucket's owner.
    pub async fn objects(&self) -> Vec<(String, u64)> {
        let mut objects = self.everything().await;
        objects.retain(|(key, _)| key != OWNER);
        objects
    }

    pub async fn everything(&self) -> Vec<(String, u64)> {
        let mut pages = self.s3.list_objects_v2().bucket(&self.bucket).into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            for object in page.unwrap().contents() {
                objects.push((object.key().unwrap().to_owned(), u64::try_from(object.size().unwrap()).unwrap()));
            }
        }
        objects
    }

    /// Every multipart upload under way, as key and id.
    pub async fn uploads(&self) -> Vec<(String, String)> {
        let mut uploads: Vec<(String, String)> = Vec::new();
        loop {
            // Garage pages by key and id too, but does not name the last id.
            let last = uploads.last().cloned().unzip();
            let page = self
                .s3
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .set_key_marker(last.0)
                .set_upload_id_marker(last.1)
                .send()
                .await
                .unwrap();
            uploads.extend(
                page.uploads().iter().map(|u| (u.key().unwrap().to_owned(), u.upload_id().unwrap().to_owned())),
            );
            if page.is_truncated() != Some(true) {
                return uploads;
            }
        }
    }

    pub async fn read(&self, key: &str) -> Vec<u8> {
        let object = self.s3.get_object().bucket(&self.bucket).key(key).send().await.unwrap();
        object.body.collect().await.unwrap().to_vec()
    }

    pub async fn content_type(&self, key: &str) -> String {
        let object = self.s3.head_object().bucket(&self.bucket).key(key).send().await.unwrap();
        object.content_type().unwrap_or_default().to_owned()
    }

    /// Puts an object there behind everybody's back.
    pub async fn put(&self, key: &str, bytes: &[u8]) {
        let body = bytes.to_vec().into();
        self.s3.put_object().bucket(&self.bucket).key(key).body(body).send().await.unwrap();
    }

    /// Opens an upload behind everybody's back.
    pub async fn open(&self, key: &str) -> String {
        let upload = self.s3.create_multipart_upload().bucket(&self.bucket).key(key).send().await.unwrap();
        upload.upload_id.unwrap()
    }

    pub async fn delete(&self, key: &str) {
        self.s3.delete_object().bucket(&self.bucket).key(key).send().await.unwrap();
    }

    pub async fn abort(&self, key: &str, upload_id: &str) {
        self.s3.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id).send().await.unwrap();
    }

    /// Leaves a bucket that was given as empty as it was, and takes away one that was made.
    pub async fn remove(&self) {
        if self.embedded.is_some() {
            return; // its folder goes as a whole
        }
        for (key, id) in self.uploads().await {
            self.abort(&key, &id).await;
        }
        for (key, _) in self.everything().await {
            self.delete(&key).await;
        }
        if self.created {
            self.s3.delete_bucket().bucket(&self.bucket).send().await.unwrap();
        }
    }
}

/// What `scripts/with-backends` exports.
fn required(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test-postgres`, or `make test-embedded`"))
}

async fn address_of(url: &Url, default_port: u16) -> SocketAddr {
    let host = url.host_str().expect("a URL with a host");
    let port = url.port_or_known_default().unwrap_or(default_port);
    tokio::net::lookup_host((host, port)).await.unwrap().next().expect("the host has an address")
}

async fn connect(url: &str) -> DatabaseConnection {
    connect_with(url, 2).await
}

async fn connect_with(url: &str, connections: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    sea_orm::Database::connect(options).await.unwrap()
}

async fn execute(url: &str, statement: &str) {
    let database = connect(url).await;
    database.execute_unprepared(statement).await.unwrap();
    database.close().await.unwrap();
}
