//! What the server adds to the calls that it makes to the store.
//!
//! Each request is followed by the same S3 calls on an upload of the same shape, made straight to the store by a thin
//! client; the figure is the median of the differences. Commits are the server's own: initiate and complete wait for two
//! each, resume for none. What the bare database takes for one stands beside it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::bare::Bare;
use crate::kit::{Api, Database, S3, Site, Store, id_of};
use crate::load::{median, millis};
use crate::table::Row;

/// Parts of an upload, as many as one of 80 MiB has; but small ones, which Garage takes.
const PARTS: u16 = 10;
const PART: &str = "................................................................";
const SETTINGS: [(&str, &str); 3] = [
    ("QUAYMASTER_STORAGE__MIN_PART_BYTES", "64"),
    ("QUAYMASTER_UPLOADS__DEFAULT__CHUNK_BYTES", "64"),
    ("QUAYMASTER_UPLOADS__DEFAULT__DIRECT_MAX_BYTES", "64"),
];
const FILE_BYTES: u64 = PARTS as u64 * PART.len() as u64;
const WARM_UP: usize = 10;
const UPLOADS: usize = 100;

/// Milliseconds of a request and of the S3 calls that it contains.
#[derive(Clone, Copy)]
struct Pair {
    whole: f64,
    store: f64,
}

pub async fn run() -> Vec<Row> {
    let mut rows = Vec::new();
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::new(database, Store::Garage, &SETTINGS).await;
        let server = site.start().await;
        let (api, s3) = (server.client(), site.s3.clone().unwrap());
        let (mut opened, mut resumed, mut completed) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..WARM_UP + UPLOADS {
            let [open, resume, complete] = upload(&api, &s3, number).await;
            if number >= WARM_UP {
                opened.push(open);
                resumed.push(resume);
                completed.push(complete);
            }
        }
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

/// One upload through the server and one without it, step by step: open, resume, complete.
async fn upload(api: &Api, s3: &S3, number: usize) -> [Pair; 3] {
    let (session, open_whole) = timed(api.initiate(&format!("reel-{number}.mov"), FILE_BYTES)).await;
    let bare_key = format!("bare/{number}/original");
    let (bare_id, open_store) = timed(s3.create_multipart(&bare_key)).await;

    let id = id_of(&session);
    let key = format!("temp/uploads/{id}/original");
    let upload_id = session["multipart_upload_id"].as_str().unwrap();
    s3.put_parts(&key, upload_id, PARTS, PART).await;
    let etags = s3.put_parts(&bare_key, &bare_id, PARTS, PART).await;

    let path = format!("/app/uploads/{id}/resume");
    let (resume, resume_whole) = timed(api.call(Method::GET, &path, None)).await;
    assert_eq!(resume["uploaded_bytes"], FILE_BYTES);
    let (listed, resume_store) = timed(s3.list_parts(&bare_key, &bare_id)).await;
    assert_eq!(listed, usize::from(PARTS));

    let body = json!({ "upload_session_id": id });
    let (_, complete_whole) = timed(api.post("/app/assets/upload/complete", &body)).await;
    let ((), complete_store) = timed(async {
        s3.list_parts(&bare_key, &bare_id).await;
        s3.complete_multipart(&bare_key, &bare_id, &etags).await;
        s3.head(&bare_key).await;
    })
    .await;

    let pair = |whole, store| Pair { whole: millis(whole), store: millis(store) };
    [pair(open_whole, open_store), pair(resume_whole, resume_store), pair(complete_whole, complete_store)]
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let done = work.await;
    (done, begun.elapsed())
}

fn row(name: &str, pairs: &[Pair], commit_ms: f64, limit_ms: f64) -> Row {
    let middle = |figure: fn(&Pair) -> f64| median(&pairs.iter().map(figure).collect::<Vec<_>>());
    let (own, whole, store) =
        (middle(|pair| pair.whole - pair.store), middle(|pair| pair.whole), middle(|pair| pair.store));
    Row::new(format!("server's share of {name}"), format!("{own:.2} ms of {whole:.2} ms"))
        .beside(format!("{store:.2} ms, the S3 calls alone; a bare commit {commit_ms:.2} ms"))
        .ratio(whole / store)
        .limit(format!("{limit_ms} ms"), own <= limit_ms)
}
