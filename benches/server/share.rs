//! What the server adds to the calls that it makes to the store.
//!
//! Each request is followed by the same S3 calls on an upload of the same shape, made straight to the store by a thin
//! client; the figure is the median of the differences. All uploads are opened, then all resumed, then all completed: a
//! verb that comes after a pause, or after another one, is slower by what the caches of the machine have lost meanwhile.
//! The store has a core of its own, as if it were another machine: it goes on working after its answers, which is no
//! share of the server's. Commits are the server's own: initiate and complete wait for two each, resume for none. What
//! the bare database takes for one stands beside it.

use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::bare::Bare;
use crate::kit::{Api, Database, S3, Site, Store, from_backends, id_of};
use crate::load::{median, millis};
use crate::table::Row;

/// Parts of an upload, as many as one of 80 MiB has; but small ones, which Garage takes.
const PARTS: u16 = 10;
const PART: &str = "................................................................";
/// Assets are moved by nobody: what is done in the background is no share of a request.
const SETTINGS: [(&str, &str); 4] = [
    ("QUAYMASTER_JOBS__ENABLED", "false"),
    ("QUAYMASTER_STORAGE__MIN_PART_BYTES", "64"),
    ("QUAYMASTER_UPLOADS__DEFAULT__CHUNK_BYTES", "64"),
    ("QUAYMASTER_UPLOADS__DEFAULT__DIRECT_MAX_BYTES", "64"),
];
const FILE_BYTES: u64 = PARTS as u64 * PART.len() as u64;
const WARM_UP: usize = 20;
const UPLOADS: usize = 200;

/// Keeps the store to one core until it is dropped. Where there is only one, nothing changes.
struct Apart {
    store: String,
    cores: usize,
}

impl Apart {
    fn new() -> Self {
        let apart = Self {
            store: from_backends("QUAYMASTER_TEST_S3_PID"),
            cores: std::thread::available_parallelism().unwrap().get(),
        };
        apart.keep_to("0");
        apart
    }

    fn keep_to(&self, cores: &str) {
        let done = Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", cores, &self.store]).output();
        assert!(done.unwrap().status.success(), "taskset cannot move the store to the cores {cores}");
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.keep_to(&format!("0-{}", self.cores - 1));
    }
}

/// Milliseconds of a request and of the S3 calls that it contains.
#[derive(Clone, Copy)]
struct Pair {
    whole: f64,
    store: f64,
}

impl Pair {
    fn new(whole: Duration, store: Duration) -> Self {
        Self { whole: millis(whole), store: millis(store) }
    }
}

pub async fn run() -> Vec<Row> {
    let _apart = Apart::new();
    let mut rows = Vec::new();
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::new(database, Store::Garage, &SETTINGS).await;
        let server = site.start().await;
        let (api, s3) = (server.client(), site.s3.clone().unwrap());
        let (mut uploads, opened) = open(&api, &s3).await;
        send(&s3, &mut uploads).await;
        let resumed = resume(&api, &s3, &uploads).await;
        let completed = complete(&api, &s3, &uploads).await;
        let bare = match database {
            Database::Sqlite => Bare::sqlite(site.dir()).await,
            Database::Postgres => Bare::postgres(1).await,
        };
        let commit_ms = millis(bare.commits(1, Duration::from_secs(2)).await.percentile(50));
        for (verb, pairs, limit_ms) in
            [("initiate multipart", &opened, 1.5), ("complete", &completed, 2.0), ("resume", &resumed, 1.0)]
        {
            rows.push(row(&format!("{verb}, {}", database.name()), pairs, commit_ms, limit_ms));
        }
    }
    rows
}

/// One upload through the server, and one of the same shape without it.
struct Upload {
    session: Value,
    bare_key: String,
    bare_id: String,
    bare_etags: Vec<String>,
}

async fn open(api: &Api, s3: &S3) -> (Vec<Upload>, Vec<Pair>) {
    let (mut uploads, mut pairs) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + UPLOADS {
        let (session, whole) = timed(api.initiate(&format!("reel-{number}.mov"), FILE_BYTES)).await;
        let bare_key = format!("bare/{number}/original");
        let (bare_id, store) = timed(s3.create_multipart(&bare_key)).await;
        uploads.push(Upload { session, bare_key, bare_id, bare_etags: vec![] });
        pairs.push(Pair::new(whole, store));
    }
    (uploads, pairs)
}

async fn send(s3: &S3, uploads: &mut [Upload]) {
    for upload in uploads {
        let key = format!("temp/uploads/{}/original", id_of(&upload.session));
        s3.put_parts(&key, upload.session["multipart_upload_id"].as_str().unwrap(), PARTS, PART).await;
        upload.bare_etags = s3.put_parts(&upload.bare_key, &upload.bare_id, PARTS, PART).await;
    }
}

async fn resume(api: &Api, s3: &S3, uploads: &[Upload]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for upload in uploads {
        let path = format!("/app/uploads/{}/resume", id_of(&upload.session));
        let (resume, whole) = timed(api.call(Method::GET, &path, None)).await;
        assert_eq!(resume["uploaded_bytes"], FILE_BYTES);
        let (listed, store) = timed(s3.list_parts(&upload.bare_key, &upload.bare_id)).await;
        assert_eq!(listed, usize::from(PARTS));
        pairs.push(Pair::new(whole, store));
    }
    pairs
}

async fn complete(api: &Api, s3: &S3, uploads: &[Upload]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for upload in uploads {
        let body = json!({ "upload_session_id": id_of(&upload.session) });
        let (asset, whole) = timed(api.post("/app/assets/upload/complete", &body)).await;
        assert_eq!(asset["file_size"], FILE_BYTES);
        let ((), store) = timed(async {
            s3.list_parts(&upload.bare_key, &upload.bare_id).await;
            s3.complete_multipart(&upload.bare_key, &upload.bare_id, &upload.bare_etags).await;
            s3.head(&upload.bare_key).await;
        })
        .await;
        pairs.push(Pair::new(whole, store));
    }
    pairs
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let done = work.await;
    (done, begun.elapsed())
}

fn row(name: &str, pairs: &[Pair], commit_ms: f64, limit_ms: f64) -> Row {
    let pairs = &pairs[WARM_UP..];
    let middle = |figure: fn(&Pair) -> f64| median(&pairs.iter().map(figure).collect::<Vec<_>>());
    let (own, whole, store) =
        (middle(|pair| pair.whole - pair.store), middle(|pair| pair.whole), middle(|pair| pair.store));
    Row::new(format!("server's share of {name}"), format!("{own:.2} ms of {whole:.2} ms"))
        .beside(format!("{store:.2} ms, the S3 calls alone; a bare commit {commit_ms:.2} ms"))
        .ratio(whole / store)
        .limit(format!("{limit_ms} ms"), own <= limit_ms)
}
