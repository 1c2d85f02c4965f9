//! `kill -9` at any moment: a write that was answered is complete, one that was not is complete or absent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::child::StoreProcess;
use crate::kit::*;

const WORKERS: u64 = 4;
const KEYS_PER_WORKER: u64 = 3;

/// The bytes of an object; `None` if it does not exist.
type Version = Option<Vec<u8>>;

/// What one worker knows about one key. No other worker writes to the key.
#[derive(Default)]
struct Known {
    /// The last version that an answer confirmed.
    settled: Version,
    /// The version that was requested and not answered.
    attempt: Option<Version>,
    /// The upload that is open under the key, with the parts that an answer confirmed.
    upload: Option<Upload>,
}

#[derive(Clone)]
struct Upload {
    id: String,
    parts: BTreeMap<i32, String>,
    /// A part that was sent and not answered; it may or may not be stored.
    sending: Option<i32>,
    completing: bool,
}

impl Upload {
    fn list(&self) -> CompletedMultipartUpload {
        let parts = self.parts.iter();
        let parts = parts.map(|(number, etag)| CompletedPart::builder().part_number(*number).e_tag(etag).build());
        CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build()
    }
}

type World = Arc<Mutex<HashMap<String, Known>>>;

fn with<T>(world: &World, key: &str, change: impl FnOnce(&mut Known) -> T) -> T {
    change(world.lock().unwrap().entry(key.to_owned()).or_default())
}

/// A killed server gives no answer; anything else is a failure of the story.
fn killed<E: ProvideErrorMetadata>(error: SdkError<E>) {
    assert_eq!(code(error), "no answer");
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = u64::from_le_bytes(noise(self.0, 8).try_into().unwrap());
        self.0 % sides
    }
}

/// Works on its keys until the server is gone.
async fn work(s3: Client, world: World, worker: u64, mut dice: Dice) {
    loop {
        let key = format!("w{worker}-{}", dice.roll(KEYS_PER_WORKER));
        let done = match dice.roll(8) {
            0..3 => put(&s3, &world, &key, &mut dice).await,
            3..7 => upload(&s3, &world, &key, &mut dice).await,
            _ => delete(&s3, &world, &key).await,
        };
        if done.is_none() {
            return;
        }
    }
}

fn attempt(world: &World, key: &str, version: Version) {
    with(world, key, |known| known.attempt = Some(version));
}

fn settle(world: &World, key: &str) {
    with(world, key, |known| known.settled = known.attempt.take().unwrap());
}

async fn put(s3: &Client, world: &World, key: &str, dice: &mut Dice) -> Option<()> {
    let length = dice.roll(600_000) as usize;
    let body = noise(dice.roll(u64::MAX), length);
    attempt(world, key, Some(body.clone()));
    s3.put_object().bucket(BUCKET).key(key).body(body.into()).send().await.map_err(killed).ok()?;
    settle(world, key);
    Some(())
}

async fn delete(s3: &Client, world: &World, key: &str) -> Option<()> {
    attempt(world, key, None);
    s3.delete_object().bucket(BUCKET).key(key).send().await.map_err(killed).ok()?;
    settle(world, key);
    Some(())
}

/// Aborts an upload left open under the key, and opens a new one: a large part that shares the bytes of another object,
/// and a small part of its own, sometimes sent twice. Then completes the upload, or leaves it open until the next call.
async fn upload(s3: &Client, world: &World, key: &str, dice: &mut Dice) -> Option<()> {
    if let Some(left) = with(world, key, |known| known.upload.clone()) {
        let abort = s3.abort_multipart_upload().bucket(BUCKET).key(key).upload_id(&left.id).send();
        // The outcome of an abort that is not answered is unknown; the upload is given up either way.
        with(world, key, |known| known.upload = None);
        abort.await.map_err(killed).ok()?;
    }
    let created = s3.create_multipart_upload().bucket(BUCKET).key(key).send().await.map_err(killed).ok()?;
    let id = created.upload_id.unwrap();
    let opened = Upload { id: id.clone(), parts: BTreeMap::new(), sending: None, completing: false };
    with(world, key, |known| known.upload = Some(opened));
    let change = |change: &dyn Fn(&mut Upload)| with(world, key, |known| change(known.upload.as_mut().unwrap()));
    let confirmed = |number: i32, etag: String| {
        change(&|upload| {
            upload.sending = None;
            upload.parts.insert(number, etag.clone());
        });
    };

    change(&|upload| upload.sending = Some(1));
    let copy = s3.upload_part_copy().bucket(BUCKET).key(key).upload_id(&id).part_number(1);
    let copied = copy.copy_source(format!("{BUCKET}/source")).send().await.map_err(killed).ok()?;
    confirmed(1, copied.copy_part_result().unwrap().e_tag().unwrap().to_owned());
    let mut tail = Vec::new();
    for _ in 0..=dice.roll(2) {
        tail = noise(dice.roll(u64::MAX), 1 + dice.roll(300_000) as usize);
        change(&|upload| {
            upload.sending = Some(2);
            upload.parts.remove(&2);
        });
        let part = s3.upload_part().bucket(BUCKET).key(key).upload_id(&id).part_number(2).body(tail.clone().into());
        confirmed(2, part.send().await.map_err(killed).ok()?.e_tag.unwrap());
    }
    if dice.roll(4) == 0 {
        return Some(());
    }
    attempt(world, key, Some([source(), tail].concat()));
    change(&|upload| upload.completing = true);
    let list = with(world, key, |known| known.upload.as_ref().unwrap().list());
    let complete = s3.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(&id).multipart_upload(list);
    complete.send().await.map_err(killed).ok()?;
    settle(world, key);
    with(world, key, |known| known.upload = None);
    Some(())
}

fn source() -> Vec<u8> {
    noise(1, PART)
}

/// Compares the stored state with the known one, and takes over the stored one.
async fn verify(s3: &Client, world: &World) {
    assert!(read(s3, "source").await == Some(source()));
    let keys: Vec<_> = world.lock().unwrap().keys().cloned().collect();
    for key in keys {
        let there = read(s3, &key).await;
        with(world, &key, |known| {
            let answered = there == known.settled;
            let asked_for = known.attempt.as_ref() == Some(&there);
            assert!(answered || asked_for, "{key}: {:?} bytes that no worker wrote", there.as_ref().map(Vec::len));
        });
        let Some(upload) = with(world, &key, |known| known.upload.clone()) else {
            with(world, &key, |known| (known.settled, known.attempt) = (there, None));
            continue;
        };
        if upload.completing {
            // Completed or not, repeating the call completes it.
            let complete = s3.complete_multipart_upload().bucket(BUCKET).key(&key).upload_id(&upload.id);
            complete.multipart_upload(upload.list()).send().await.map_err(code).unwrap();
            let wanted = with(world, &key, |known| known.attempt.take().unwrap());
            assert!(read(s3, &key).await == wanted, "{key}: differs from what was completed");
            with(world, &key, |known| (known.settled, known.upload) = (wanted, None));
            continue;
        }
        let listed = s3.list_parts().bucket(BUCKET).key(&key).upload_id(&upload.id).send().await.map_err(code).unwrap();
        let all: BTreeMap<_, _> =
            listed.parts().iter().map(|part| (part.part_number().unwrap(), part.e_tag().unwrap().to_owned())).collect();
        let mut answered = all.clone();
        answered.retain(|number, _| upload.sending != Some(*number));
        assert_eq!(answered, upload.parts, "{key}: parts that were answered");
        with(world, &key, |known| {
            (known.settled, known.attempt) = (there, None);
            known.upload = Some(Upload { parts: all, sending: None, ..upload });
        });
    }
}

async fn read(s3: &Client, key: &str) -> Version {
    match s3.get_object().bucket(BUCKET).key(key).send().await.map_err(code) {
        Ok(got) => Some(got.body.collect().await.unwrap().to_vec()),
        Err(code) => {
            assert_eq!(code, "NoSuchKey");
            None
        }
    }
}

/// Every blob on the disk has a row, and every row its blob.
async fn disk_and_rows_agree(root: &Path) {
    let options = SqliteConnectOptions::new().filename(root.join("metadata.db")).read_only(true);
    let mut rows = SqliteConnection::connect_with(&options).await.unwrap();
    let sql = "SELECT lower(hex(blob)) FROM object_segment UNION SELECT lower(hex(blob)) FROM part_segment";
    let named: BTreeSet<String> = sqlx::query_scalar(sql).fetch_all(&mut rows).await.unwrap().into_iter().collect();
    let mut found = BTreeSet::new();
    for shard in std::fs::read_dir(root.join("blobs")).unwrap() {
        for blob in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            found.insert(blob.unwrap().file_name().into_string().unwrap());
        }
    }
    assert_eq!(found, named);
    let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut rows).await.unwrap();
    assert_eq!(check, "ok");
    rows.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_that_it_answered() {
    let rounds = std::env::var("EMBEDDED_S3_CRASH_ROUNDS").ok().map_or(12, |rounds| rounds.parse().unwrap());
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().unwrap();
    let world = World::default();
    {
        let process = StoreProcess::start(dir.path());
        let s3 = client(&process.endpoint);
        s3.put_object().bucket(BUCKET).key("source").body(source().into()).send().await.unwrap();
        process.kill();
    }
    for round in 0..rounds {
        let process = StoreProcess::start(dir.path());
        disk_and_rows_agree(dir.path()).await;
        let s3 = client(&process.endpoint);
        verify(&s3, &world).await;
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| tokio::spawn(work(s3.clone(), Arc::clone(&world), worker, Dice(dice.roll(u64::MAX)))))
            .collect();
        tokio::time::sleep(Duration::from_millis(20 + dice.roll(600))).await;
        process.kill();
        for worker in workers {
            worker.await.unwrap();
        }
        println!("round {round}: killed with {} uploads open", open(&world));
    }
    let process = StoreProcess::start(dir.path());
    disk_and_rows_agree(dir.path()).await;
    verify(&client(&process.endpoint), &world).await;
}

fn open(world: &World) -> usize {
    world.lock().unwrap().values().filter(|known| known.upload.is_some()).count()
}
