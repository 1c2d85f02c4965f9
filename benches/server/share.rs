//! What the server adds to the calls that it makes to the store.
//!
//! Each request is followed by the same S3 calls on an upload of the same shape, made straight to the store by a thin
//! client; the figure is the median of the differences. All uploads are opened, then all resumed, then all completed: a
//! verb is slower after a pause or after another verb, because the machine's caches have gone cold. The store has a core
//! of its own, as if on another machine: it goes on working after its answers, and that work is not the server's share.
//!
//! The limits consist of bare operations, so that they are as fast or slow as the machine: a commit of one INSERT, a HEAD
//! of an object and a list of ten parts, one of each after each request.

use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::bare::Bare;
use crate::kit::{Api, Database, S3, Site, Store, from_backends, id_of};
use crate::load::{median, millis};
use crate::table::Row;

/// Number of parts of an upload, as for one of 80 MiB; but the parts are small, which Garage accepts.
const PARTS: u16 = 10;
const PART: &str = "................................................................";
/// No job runs, so no asset is promoted: background work is not part of a request.
const SETTINGS: [(&str, &str); 4] = [
    ("QUAYMASTER_JOBS__ENABLED", "false"),
    ("QUAYMASTER_STORAGE__MIN_PART_BYTES", "64"),
    ("QUAYMASTER_UPLOADS__DEFAULT__CHUNK_BYTES", "64"),
    ("QUAYMASTER_UPLOADS__DEFAULT__DIRECT_MAX_BYTES", "64"),
];
const FILE_BYTES: u64 = PARTS as u64 * PART.len() as u64;
const WARM_UP: usize = 20;
const UPLOADS: usize = 200;

/// Pins the store to one core until this value is dropped. On a machine with a single core, nothing changes.
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

/// The limit on the server's share of a verb, in bare operations.
struct Limit {
    /// Commits that the verb waits for.
    commits: u32,
    /// Each stands for a round trip to another process.
    heads: u32,
    /// Each stands for a document that is rendered from rows and parsed.
    lists: u32,
}

/// HEADs for the verb's own request: one for the round trip, one for the token and the JSON, which a HEAD does not have,
/// and one for the additional work of the SDK, compared with the thin client: its retries, checks and signatures.
const REQUEST: u32 = 3;

impl Limit {
    /// `others` counts reads and writes besides one row for each commit. On PostgreSQL each counts as a round trip, as most
    /// of them are. In SQLite they are calls within the process, and all those of a transaction count as one.
    const fn new(database: Database, commits: u32, others: u32, lists: u32) -> Self {
        let round_trips = match database {
            Database::Sqlite if commits == 0 => 1,
            Database::Sqlite => commits,
            Database::Postgres => others,
        };
        Self { commits, heads: REQUEST + round_trips, lists }
    }

    /// Commits the session with its usage, then the upload that the store has opened; the answer is a session.
    const fn initiate(database: Database) -> Self {
        Self::new(database, 2, 3, 1)
    }

    /// Commits the intent, then the asset with its job; the list of parts comes from the store and goes back to it.
    const fn complete(database: Database) -> Self {
        Self::new(database, 2, 7, 2)
    }

    /// Commits nothing; the list of parts comes from the store and goes to the client.
    const fn resume(database: Database) -> Self {
        Self::new(database, 0, 1, 2)
    }

    fn ms(&self, samples: &[Sample]) -> f64 {
        f64::from(self.commits) * middle(samples, |sample| sample.commit)
            + f64::from(self.heads) * middle(samples, |sample| sample.head)
            + f64::from(self.lists) * middle(samples, |sample| sample.list)
    }

    /// `2 commits + 1 HEAD`
    fn text(&self) -> String {
        let counted = [(self.commits, "commit"), (self.heads, "HEAD"), (self.lists, "list")];
        let terms = counted.iter().filter(|(count, _)| *count > 0);
        let terms = terms.map(|(count, name)| format!("{count} {name}{}", if *count == 1 { "" } else { "s" }));
        terms.collect::<Vec<_>>().join(" + ")
    }
}

/// Milliseconds of a request, of the S3 calls that it contains, and of the bare operations after it.
#[derive(Clone, Copy)]
struct Sample {
    whole: f64,
    store: f64,
    commit: f64,
    head: f64,
    list: f64,
}

/// The bare operations of the limits.
struct BareCalls {
    database: Bare,
    s3: S3,
    /// The key of an object, and of an open upload with parts.
    key: &'static str,
    upload_id: String,
}

impl BareCalls {
    async fn new(database: Database, site: &Site) -> Self {
        let database = match database {
            Database::Sqlite => Bare::sqlite(site.dir()).await,
            Database::Postgres => Bare::postgres(1).await,
        };
        let (s3, key) = (site.s3.clone(), "bare/original");
        let upload_id = s3.create_multipart(key).await;
        let etags = s3.put_parts(key, &upload_id, PARTS, PART).await;
        s3.complete_multipart(key, &upload_id, &etags).await;
        let upload_id = s3.create_multipart(key).await;
        s3.put_parts(key, &upload_id, PARTS, PART).await;
        Self { database, s3, key, upload_id }
    }

    /// Runs one of each right after the request: in a separate loop each would be faster, because of warm caches.
    async fn beside(&self, whole: Duration, store: Duration) -> Sample {
        let ((), commit) = timed(self.database.commit()).await;
        let ((), head) = timed(self.s3.head(self.key)).await;
        let (_, list) = timed(self.s3.list_parts(self.key, &self.upload_id)).await;
        let [whole, store, commit, head, list] = [whole, store, commit, head, list].map(millis);
        Sample { whole, store, commit, head, list }
    }
}

pub async fn run() -> Vec<Row> {
    let _apart = Apart::new();
    let mut rows = Vec::new();
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::new(database, Store::Garage, &SETTINGS).await;
        let server = site.start().await;
        let (api, s3) = (server.client(), site.s3.clone());
        let bare = BareCalls::new(database, &site).await;
        let (mut uploads, opened) = open(&api, &s3, &bare).await;
        send(&s3, &mut uploads).await;
        let resumed = resume(&api, &s3, &uploads, &bare).await;
        let completed = complete(&api, &s3, &uploads, &bare).await;
        for (verb, samples, limit) in [
            ("initiate multipart", &opened, Limit::initiate(database)),
            ("complete", &completed, Limit::complete(database)),
            ("resume", &resumed, Limit::resume(database)),
        ] {
            rows.push(row(&format!("{verb}, {}", database.name()), samples, &limit));
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

async fn open(api: &Api, s3: &S3, bare: &BareCalls) -> (Vec<Upload>, Vec<Sample>) {
    let (mut uploads, mut samples) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + UPLOADS {
        let (session, whole) = timed(api.initiate(&format!("reel-{number}.mov"), FILE_BYTES)).await;
        let bare_key = format!("bare/{number}/original");
        let (bare_id, store) = timed(s3.create_multipart(&bare_key)).await;
        uploads.push(Upload { session, bare_key, bare_id, bare_etags: vec![] });
        samples.push(bare.beside(whole, store).await);
    }
    (uploads, samples)
}

async fn send(s3: &S3, uploads: &mut [Upload]) {
    for upload in uploads {
        let key = format!("temp/uploads/{}/original", id_of(&upload.session));
        s3.put_parts(&key, upload.session["multipart_upload_id"].as_str().unwrap(), PARTS, PART).await;
        upload.bare_etags = s3.put_parts(&upload.bare_key, &upload.bare_id, PARTS, PART).await;
    }
}

async fn resume(api: &Api, s3: &S3, uploads: &[Upload], bare: &BareCalls) -> Vec<Sample> {
    let mut samples = Vec::new();
    for upload in uploads {
        let path = format!("/app/uploads/{}/resume", id_of(&upload.session));
        let (resume, whole) = timed(api.call(Method::GET, &path, None)).await;
        assert_eq!(resume["uploaded_bytes"], FILE_BYTES);
        let (listed, store) = timed(s3.list_parts(&upload.bare_key, &upload.bare_id)).await;
        assert_eq!(listed, usize::from(PARTS));
        samples.push(bare.beside(whole, store).await);
    }
    samples
}

async fn complete(api: &Api, s3: &S3, uploads: &[Upload], bare: &BareCalls) -> Vec<Sample> {
    let mut samples = Vec::new();
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
        samples.push(bare.beside(whole, store).await);
    }
    samples
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let done = work.await;
    (done, begun.elapsed())
}

/// The median, without the warm-up samples.
fn middle(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(&samples[WARM_UP..].iter().map(figure).collect::<Vec<_>>())
}

fn row(name: &str, samples: &[Sample], limit: &Limit) -> Row {
    let ms = |figure: fn(&Sample) -> f64| middle(samples, figure);
    let own = ms(|sample| sample.whole - sample.store);
    let limit_ms = limit.ms(samples);
    Row::new(format!("server's share of {name}"), format!("{own:.2} ms of {:.2} ms", ms(|sample| sample.whole)))
        .beside(format!(
            "{:.2} ms, the S3 calls; bare: commit {:.2}, HEAD {:.2}, list {:.2} ms",
            ms(|sample| sample.store),
            ms(|sample| sample.commit),
            ms(|sample| sample.head),
            ms(|sample| sample.list)
        ))
        .ratio(own / limit_ms)
        .limit(format!("{} = {limit_ms:.2} ms", limit.text()), own <= limit_ms)
}
