//! Runs the release binary as a server, on a free port and in a temporary folder, and sends requests to it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use rusty_s3::actions::{CreateMultipartUpload, ListObjectsV2, ListParts, ObjectIdentifier};
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
const TENANT: &str = "bench";
const BINARY: &str = env!("CARGO_BIN_EXE_quaymaster");
/// The permissions that a web application gives its users.
const PERMISSIONS: [&str; 5] = ["uploads.create", "uploads.view", "uploads.cancel", "assets.create", "assets.view"];
/// Longer than any answer takes, unless it is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The kernel counts processor time for `/proc` in hundredths of a second, on every architecture (`USER_HZ`).
const TICKS_PER_SEC: f64 = 100.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The server's own store.
    Embedded,
    /// The store that `scripts/with-backends` started.
    Garage,
}

impl Store {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded store",
            Self::Garage => "Garage",
        }
    }
}

/// A place for a server, with a migrated database and a tenant in it. No server runs yet.
pub struct Site {
    pub database: Database,
    env: Vec<(String, String)>,
    dir: TempDir,
    token: String,
    /// The store that the server uses.
    pub s3: S3,
}

impl Site {
    /// `settings` override the defaults. They are named as in the environment.
    pub async fn new(database: Database, store: Store, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("quaymaster-bench").tempdir().unwrap();
        let data = dir.path().join("data");
        let store_port = free_port();
        let mut env: Vec<(String, String)> = [
            ("QUAYMASTER_DATA_DIR", data.to_str().unwrap()),
            ("QUAYMASTER_EMBEDDED__PORT", &store_port.to_string()),
            ("JWT_SECRET", "a-secret-for-benchmarks-that-is-long-enough"),
            ("AUDIT_KEY", "an-audit-key-for-benchmarks-that-is-long-enough"),
        ]
        .iter()
        .chain(settings)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        if database == Database::Postgres {
            env.push(("DATABASE_URL".to_owned(), new_postgres_database().await));
        }
        let garage = match store {
            Store::Embedded => None,
            Store::Garage => Some(S3::garage().await),
        };
        env.extend(garage.iter().flat_map(S3::env));
        // The first command creates the folder with its secrets.
        command_at(dir.path(), &env, &["tenant", "create", TENANT, "--brand", "main"]);
        let s3 = garage.unwrap_or_else(|| S3::embedded(store_port, &data));
        let mut site = Self { database, env, dir, token: String::new(), s3 };
        site.token = site.user_token(TENANT);
        site
    }

    /// Creates another tenant. Returns a token for one of its users.
    pub fn another_tenant(&self, slug: &str) -> String {
        self.command(&["tenant", "create", slug, "--brand", "main"]);
        self.user_token(slug)
    }

    pub fn operator_token(&self) -> String {
        self.command(&["token", "--operator", "--ttl", "8h"])
    }

    fn user_token(&self, tenant: &str) -> String {
        let permissions = PERMISSIONS.iter().flat_map(|permission| ["--permission", permission]);
        let user = ["token", "--tenant", tenant, "--brand", "main", "--user", "ann", "--ttl", "8h"];
        self.command(&user.into_iter().chain(permissions).collect::<Vec<_>>())
    }

    /// The folder, which is removed when this value is dropped.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns a command for the binary, without this process's environment, which could change its behaviour.
    pub fn quaymaster(&self) -> Command {
        quaymaster(self.dir.path(), &self.env)
    }

    /// Starts a server, and returns at once.
    pub fn spawn(&self) -> Server {
        let port = free_port();
        let log = fs::File::create(self.dir.path().join("server.log")).unwrap();
        let child =
            self.quaymaster().arg("serve").env("PORT", port.to_string()).stdout(Stdio::null()).stderr(log).spawn();
        Server {
            child: child.unwrap(),
            url: format!("http://127.0.0.1:{port}"),
            token: self.token.clone(),
            http: client(),
        }
    }

    /// Starts a server and waits until it is ready.
    pub async fn start(&self) -> Server {
        let mut server = self.spawn();
        if !server.ready_within(Duration::from_secs(30)).await {
            panic!("the server did not start:\n{}", fs::read_to_string(self.dir.path().join("server.log")).unwrap());
        }
        server
    }

    /// Runs a command. Returns its output.
    fn command(&self, args: &[&str]) -> String {
        command_at(self.dir.path(), &self.env, args)
    }
}

fn quaymaster(dir: &Path, env: &[(String, String)]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().current_dir(dir).stdin(Stdio::null());
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command
}

fn command_at(dir: &Path, env: &[(String, String)], args: &[&str]) -> String {
    let output = quaymaster(dir, env).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns a free port below the range of ephemeral ports, so that no outgoing connection takes it before the server does.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A client that ignores the machine's proxy settings.
fn client() -> Client {
    Client::builder().no_proxy().tcp_nodelay(true).timeout(ANSWER_WITHIN).build().unwrap()
}

async fn new_postgres_database() -> String {
    let url = from_backends("QUAYMASTER_TEST_POSTGRES");
    let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
    let mut admin = sqlx::PgConnection::connect(&url).await.unwrap();
    // The databases of earlier parts would be vacuumed while this one is measured.
    let earlier = "SELECT CAST(datname AS text) FROM pg_database WHERE datname LIKE 'bench\\_%'";
    for name in sqlx::query_scalar::<_, String>(earlier).fetch_all(&mut admin).await.unwrap() {
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// Returns a variable that `scripts/with-backends` sets for the back ends that it started.
pub fn from_backends(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with scripts/bench"))
}

/// A server's process, which is killed when this value is dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub token: String,
    http: Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Polls `/readyz` every millisecond. Returns whether it answers 200 within `time`.
    pub async fn ready_within(&mut self, time: Duration) -> bool {
        let begun = Instant::now();
        let url = format!("{}/readyz", self.url);
        while begun.elapsed() < time && self.child.try_wait().unwrap().is_none() {
            if self.http.get(&url).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        false
    }

    pub fn client(&self) -> Api {
        self.client_with(&self.token)
    }

    pub fn client_with(&self, token: &str) -> Api {
        Api { http: self.http.clone(), url: self.url.clone(), token: token.to_owned() }
    }

    /// Processor time that the process has used so far, in user mode and in the kernel.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // proc_pid_stat(5): utime and stime are fields 14 and 15; the second, a name in brackets, may hold spaces.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: f64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
        Duration::from_secs_f64(ticks / TICKS_PER_SEC)
    }

    /// A field of `/proc/PID/status` that counts KiB, such as `VmRSS`, converted to MiB.
    pub fn memory_mib(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

/// A caller with a token. Connections are kept and shared by clones.
#[derive(Clone)]
pub struct Api {
    http: Client,
    url: String,
    token: String,
}

impl Api {
    /// Sends a request, which must succeed.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        self.try_call(method, path, body).await.unwrap()
    }

    /// # Errors
    /// The unsuccessful answer, or the reason why there is none.
    pub async fn try_call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| format!("{path}: {error}"))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| format!("{path}: {error}"))?;
        if !status.is_success() {
            return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
    }

    /// Sends the bytes of a direct upload.
    ///
    /// # Errors
    /// The unsuccessful answer, or the reason why there is none.
    pub async fn put(&self, upload: &Value, bytes: &'static [u8]) -> Result<(), String> {
        let answer = put_request(&self.http, upload).body(bytes).send().await;
        answer.and_then(|answer| answer.error_for_status()).map(drop).map_err(|error| error.without_url().to_string())
    }

    /// Waits until no promotion is left: every asset is READY. Requires an operator's token.
    pub async fn all_ready(&self) {
        loop {
            let answer = self.http.get(format!("{}/admin/metrics", self.url)).bearer_auth(&self.token).send().await;
            let figures = answer.unwrap().error_for_status().unwrap().text().await.unwrap();
            let left: Vec<_> =
                figures.lines().filter(|line| line.starts_with("quaymaster_jobs{kind=\"promote")).collect();
            assert!(!left.iter().any(|line| line.contains("state=\"dead\"")), "a promotion has failed: {left:?}");
            if left.is_empty() {
                return;
            }
            // Rare enough not to be a load itself.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn initiate(&self, name: &str, bytes: u64) -> Value {
        self.post("/app/uploads/initiate", &new_upload(name, bytes)).await
    }
}

/// The body of a request for a session.
pub fn new_upload(name: &str, bytes: u64) -> Value {
    json!({ "file_name": name, "file_size": bytes, "mime_type": "video/quicktime" })
}

pub fn id_of(session: &Value) -> &str {
    session["upload_session_id"].as_str().unwrap()
}

/// The PUT of a direct upload, without its bytes.
pub fn put_request(http: &Client, upload: &Value) -> RequestBuilder {
    let headers = upload["upload_headers"].as_object().unwrap();
    let put = http.put(upload["upload_url"].as_str().unwrap());
    headers.iter().fold(put, |put, (name, value)| put.header(name, value.as_str().unwrap()))
}

/// A bucket, and the calls that Quaymaster makes to it, sent here directly.
#[derive(Clone)]
pub struct S3 {
    bucket: Bucket,
    credentials: Credentials,
    http: Client,
}

const URL_LIVES: Duration = Duration::from_secs(3600);

impl S3 {
    /// Creates a bucket in Garage.
    async fn garage() -> Self {
        let set = |name: &str| from_backends(&format!("QUAYMASTER_TEST_S3_{name}"));
        let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
        let endpoint = set("ENDPOINT").parse().unwrap();
        let bucket = Bucket::new(endpoint, UrlStyle::Path, name, set("REGION")).unwrap();
        let credentials = Credentials::new(set("ACCESS_KEY"), set("SECRET_KEY"));
        let s3 = Self { bucket, credentials, http: client() };
        let create = s3.bucket.create_bucket(&s3.credentials);
        s3.send(Method::PUT, create.sign(URL_LIVES), create.body()).await;
        s3
    }

    /// The bucket of a server's own store, with the credential from its data folder.
    fn embedded(port: u16, data: &Path) -> Self {
        let endpoint = format!("http://127.0.0.1:{port}").parse().unwrap();
        let bucket = Bucket::new(endpoint, UrlStyle::Path, "quaymaster", "us-east-1").unwrap();
        let secret = |name| fs::read_to_string(data.join(name)).unwrap().trim().to_owned();
        let credentials = Credentials::new(secret("store-access-key-id"), secret("store-secret-access-key"));
        Self { bucket, credentials, http: client() }
    }

    /// The URL of the store, without the bucket.
    pub fn endpoint(&self) -> &str {
        self.bucket.base_url().as_str().split_once(&format!("/{}", self.bucket.name())).unwrap().0
    }

    /// The environment with which a server uses this bucket.
    fn env(&self) -> Vec<(String, String)> {
        [
            ("STORAGE_PROVIDER", "garage"),
            ("AWS_BUCKET", self.bucket.name()),
            ("AWS_REGION", self.bucket.region()),
            ("AWS_ENDPOINT_URL_S3", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", self.credentials.key()),
            ("AWS_SECRET_ACCESS_KEY", self.credentials.secret()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Returns a command for rclone in which `store:` is this store.
    pub fn rclone(&self) -> Command {
        let mut command = Command::new("rclone");
        // rclone would use variables that this shell sets for other S3 programs.
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("RCLONE_CONFIG", "/dev/null");
        command.envs([
            ("RCLONE_CONFIG_STORE_TYPE", "s3"),
            ("RCLONE_CONFIG_STORE_PROVIDER", "Other"),
            ("RCLONE_CONFIG_STORE_ENDPOINT", self.endpoint()),
            ("RCLONE_CONFIG_STORE_REGION", self.bucket.region()),
            ("RCLONE_CONFIG_STORE_ACCESS_KEY_ID", self.credentials.key()),
            ("RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY", self.credentials.secret()),
        ]);
        command
    }

    pub fn bucket_name(&self) -> &str {
        self.bucket.name()
    }

    pub async fn create_multipart(&self, key: &str) -> String {
        let url = self.bucket.create_multipart_upload(Some(&self.credentials), key).sign(URL_LIVES);
        let answer = self.send(Method::POST, url, String::new()).await;
        CreateMultipartUpload::parse_response(&answer).unwrap().upload_id().to_owned()
    }

    /// Sends the parts 1 to `count`, all with the same bytes. Returns their ETags.
    pub async fn put_parts(&self, key: &str, upload_id: &str, count: u16, bytes: &str) -> Vec<String> {
        let mut etags = Vec::new();
        for number in 1..=count {
            let url = self.bucket.upload_part(Some(&self.credentials), key, number, upload_id).sign(URL_LIVES);
            let answer = self.http.put(url).body(bytes.to_owned()).send().await.unwrap();
            assert!(answer.status().is_success(), "part {number}: {}", answer.status());
            etags.push(answer.headers()["etag"].to_str().unwrap().to_owned());
        }
        etags
    }

    /// Lists the parts. Returns their number.
    pub async fn list_parts(&self, key: &str, upload_id: &str) -> usize {
        let url = self.bucket.list_parts(Some(&self.credentials), key, upload_id).sign(URL_LIVES);
        ListParts::parse_response(&self.send(Method::GET, url, String::new()).await).unwrap().parts.len()
    }

    pub async fn complete_multipart(&self, key: &str, upload_id: &str, etags: &[String]) {
        let etags = etags.iter().map(String::as_str);
        let complete = self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload_id, etags);
        let url = complete.sign(URL_LIVES);
        self.send(Method::POST, url, complete.body()).await;
    }

    pub async fn head(&self, key: &str) {
        let url = self.bucket.head_object(Some(&self.credentials), key).sign(URL_LIVES);
        self.send(Method::HEAD, url, String::new()).await;
    }

    /// Deletes all objects in the bucket.
    pub async fn empty(&self) {
        loop {
            let url = self.bucket.list_objects_v2(Some(&self.credentials)).sign(URL_LIVES);
            let listed = ListObjectsV2::parse_response(&self.send(Method::GET, url, String::new()).await).unwrap();
            if listed.contents.is_empty() {
                return;
            }
            // The keys have no character that a URL encodes, so the list holds them unchanged.
            let objects: Vec<_> = listed.contents.into_iter().map(|object| ObjectIdentifier::new(object.key)).collect();
            let delete = self.bucket.delete_objects(Some(&self.credentials), objects.iter());
            let url = delete.sign(URL_LIVES);
            let (body, md5) = delete.body_with_md5();
            let answer = self.http.post(url).header("Content-MD5", md5).body(body).send().await.unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            assert!(status.is_success() && !text.contains("<Error>"), "{status} {text}");
        }
    }

    async fn send(&self, method: Method, url: url::Url, body: String) -> String {
        let answer = self.http.request(method.clone(), url).body(body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method}: {status} {text}");
        text
    }
}
