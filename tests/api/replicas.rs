//! Three servers on one PostgreSQL and one Garage, under load and under fire: killed, frozen, cut off, and with nobody at
//! the other end who says anything; at the end the whole ledger is checked, and that live readers have heard of all of it.
//!
//! `make chaos` runs this for ten minutes. What happens is decided by a seed, which is printed; when it happens is not.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "whoever waits ten minutes wants to see the seed and the figures"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use entity::upload_session::Status;
use entity::{SessionId, asset, tenant, tenant_usage, upload_event, upload_session};
use quaymaster::feed::public_name;
use reqwest::{Client, Method, StatusCode};
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kit::{Database, Fault, Op, Pair, Store, free_port};

const REPLICAS: usize = 3;
const CLIENTS: usize = 12;
/// What a client may wait for one request to get through, over all that befalls the servers.
const PATIENCE: Duration = Duration::from_secs(90);
const CHUNK: usize = 4096;
/// In which a replica serves again that somebody else's silence has held up.
const WELL_WITHIN: Duration = Duration::from_secs(20);
/// Readers of live events, of each tenant.
const READERS: usize = 2;
/// Under a quota that the load keeps hitting.
const QUOTA_LIVE: i64 = 4;
const QUOTA_BYTES: i64 = 400_000;

mod three_replicas_under_fire {
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn postgres() {
        if std::env::var_os("QUAYMASTER_TEST_S3_BUCKET").is_some() {
            eprintln!("skipped: a real store takes no proxy");
            return;
        }
        let lasting = std::env::var("QUAYMASTER_TEST_CHAOS_SECS").map_or(15, |secs| secs.parse().unwrap());
        let seed =
            std::env::var("QUAYMASTER_TEST_CHAOS_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
        super::under_fire(std::time::Duration::from_secs(lasting), seed).await;
    }
}

async fn under_fire(lasting: Duration, seed: u64) {
    println!("chaos: seed {seed}, {} s, {REPLICAS} replicas, {CLIENTS} clients", lasting.as_secs());
    let world = Arc::new(World::start().await);
    let (stop, stopped) = watch::channel(false);
    let enough = CancellationToken::new();

    let mut readers = Vec::new();
    for (reader, tenant) in (0..READERS).flat_map(|reader| [(reader, 0), (reader, 1)]) {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let dice = fastrand::Rng::with_seed(seed ^ (1_000 + 10 * tenant as u64 + reader as u64));
        let heard = tokio::spawn(listen_until(Arc::clone(&world), dice, tenant, begun, enough.clone()));
        has_begun.await.unwrap();
        readers.push((tenant, heard));
    }
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        tasks.push(tokio::spawn(upload_until(Arc::clone(&world), client, seed, stopped.clone())));
    }
    let troubles = [
        tokio::spawn(kill_replicas(Arc::clone(&world), seed, stopped.clone())),
        tokio::spawn(break_the_store(Arc::clone(&world), seed, stopped.clone())),
        tokio::spawn(cut_the_database(Arc::clone(&world), seed, stopped.clone())),
        tokio::spawn(fall_silent(Arc::clone(&world), seed, stopped.clone())),
        tokio::spawn(watch_the_quota(Arc::clone(&world), stopped.clone())),
    ];
    tokio::time::sleep(lasting).await;
    stop.send_replace(true);
    // Each trouble ends what it has begun; the clients then come to the end of what they are at.
    for trouble in troubles {
        trouble.await.unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    world.settle().await;
    let unheard = world.unheard(readers, &enough).await;
    world.check(unheard).await;
    world.finish().await;
}

/// What a live reader has heard of: sessions and the names of events.
type Heard = BTreeSet<(String, String)>;

/// What a client was told, and will hold the servers to.
#[derive(Clone, Debug)]
enum Told {
    /// Asset id and SHA-256 of the bytes.
    Completed {
        asset: String,
        sha256: Vec<u8>,
    },
    Cancelled,
    /// Left alone in the middle.
    Abandoned,
}

struct World {
    database: Database,
    store: Store,
    http: Client,
    env: BTreeMap<String, String>,
    folder: tempfile::TempDir,
    ports: [u16; REPLICAS],
    replicas: [tokio::sync::Mutex<Option<Child>>; REPLICAS],
    tokens: [String; 2],
    told: Mutex<BTreeMap<String, Told>>,
    /// What a silence is told apart by: while it lasts there is no other trouble, which would be a reason of its own.
    troubles: tokio::sync::RwLock<()>,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    requests: AtomicU64,
    retries: AtomicU64,
    refused_by_quota: AtomicU64,
    kills: AtomicU64,
    /// Replicas that could not start while the database was away, and were started again.
    restarts: AtomicU64,
    store_faults: AtomicU64,
    database_cuts: AtomicU64,
    freezes: AtomicU64,
    store_silences: AtomicU64,
    database_silences: AtomicU64,
    /// The longest that a replica took to serve again, in milliseconds.
    slowest_recovery: AtomicU64,
    events: AtomicU64,
    streams: AtomicU64,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::start(Pair::Postgres, folder.path()).await;
        let store = Store::start(Pair::Postgres, folder.path()).await;
        let mut env: BTreeMap<String, String> = [
            (database.env.0, database.env.1.as_str()),
            ("JWT_SECRET", "a secret of three replicas, long enough for HS256"),
            ("AUDIT_KEY", "a key that three replicas share, long enough"),
            ("QUAYMASTER_LOG__LEVEL", "info"),
            ("QUAYMASTER_LOG__FORMAT", "json"),
            ("QUAYMASTER_SERVER__WORKERS", "1"),
            ("QUAYMASTER_SERVER__SHUTDOWN_GRACE_SECS", "10"),
            ("QUAYMASTER_STORAGE__MIN_PART_BYTES", "1024"),
            ("QUAYMASTER_UPLOADS__DEFAULT__CHUNK_BYTES", "4096"),
            ("QUAYMASTER_UPLOADS__DEFAULT__DIRECT_MAX_BYTES", "4096"),
            ("QUAYMASTER_UPLOADS__DEFAULT__URL_TTL_SECS", "110"),
            ("QUAYMASTER_DATABASE__STATEMENT_TIMEOUT_SECS", "10"),
            ("QUAYMASTER_STORAGE__CONNECT_TIMEOUT_SECS", "1"),
            ("QUAYMASTER_STORAGE__READ_TIMEOUT_SECS", "2"),
            ("QUAYMASTER_STORAGE__ATTEMPT_TIMEOUT_SECS", "3"),
            ("QUAYMASTER_STORAGE__MAX_ATTEMPTS", "2"),
            // Nobody who keeps trying is idle for so long; the passes run all the time, and must find nobody.
            ("QUAYMASTER_LIFECYCLE__ABANDONED_AFTER_SECS", "120"),
            ("QUAYMASTER_LIFECYCLE__INITIATING_AFTER_SECS", "120"),
            ("QUAYMASTER_LIFECYCLE__ORPHAN_AFTER_SECS", "120"),
            ("QUAYMASTER_SCHEDULE__DETECT_ABANDONED", "*/5 * * * * *"),
            ("QUAYMASTER_SCHEDULE__CLEANUP", "*/7 * * * * *"),
            ("QUAYMASTER_SCHEDULE__ORPHANS", "*/11 * * * * *"),
            ("QUAYMASTER_SCHEDULE__RECONCILE", "*/3 * * * * *"),
            ("QUAYMASTER_JOBS__LEASE_SECS", "3"),
            ("QUAYMASTER_JOBS__POLL_MILLIS", "200"),
            ("QUAYMASTER_JOBS__BACKOFF_SECS", "1"),
            ("QUAYMASTER_JOBS__BACKOFF_MAX_SECS", "2"),
            ("QUAYMASTER_JOBS__MAX_ATTEMPTS", "1000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        env.extend(store.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let mut ports = [0; REPLICAS];
        ports.fill_with(free_port);
        let mut world = Self {
            database,
            store,
            http: Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().unwrap(),
            env,
            folder,
            ports,
            replicas: Default::default(),
            tokens: Default::default(),
            told: Mutex::default(),
            troubles: tokio::sync::RwLock::default(),
            figures: Figures::default(),
        };
        // One tenant is free, the other lives under a quota.
        for (slug, token) in ["free", "bound"].into_iter().zip(0..) {
            world.command(&["tenant", "create", slug]).await;
            world.tokens[token] = world.command(&["token", "--tenant", slug, "--ttl", "8h"]).await.trim().to_owned();
        }
        let (live, bytes) = (QUOTA_LIVE.to_string(), QUOTA_BYTES.to_string());
        world.command(&["tenant", "quota", "bound", "--live-sessions", &live, "--bytes", &bytes]).await;
        for replica in 0..REPLICAS {
            world.start_replica(replica).await;
        }
        world
    }

    /// Runs a command to its good end, and returns what it prints.
    async fn command(&self, args: &[&str]) -> String {
        let (succeeded, output) = self.try_command(args).await;
        assert!(succeeded, "{args:?}: {output}");
        output
    }

    async fn try_command(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
        let output = command.args(args).env_clear().envs(&self.env).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        (output.status.success(), if stdout.is_empty() { stderr } else { stdout })
    }

    async fn start_replica(&self, replica: usize) {
        let log = std::fs::File::options().create(true).append(true).open(self.log(replica)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
        command.arg("serve").env_clear().envs(&self.env).env("PORT", self.ports[replica].to_string());
        let child = command.stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn().unwrap();
        *self.replicas[replica].lock().await = Some(child);
    }

    fn log(&self, replica: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("replica-{replica}.log"))
    }

    /// Asks any replica, and again another one, until somebody answers who could do it.
    async fn ask(&self, dice: &mut fastrand::Rng, tenant: usize, method: Method, path: &str, body: &Value) -> Reply {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            self.figures.requests.fetch_add(1, Ordering::Relaxed);
            let port = self.ports[dice.usize(..REPLICAS)];
            let request = self.http.request(method.clone(), format!("http://127.0.0.1:{port}{path}"));
            let request = request.bearer_auth(&self.tokens[tenant]);
            let request = if method == Method::GET { request } else { request.json(body) };
            match request.send().await {
                Ok(answer) => {
                    let status = answer.status();
                    // An answer that breaks off was none.
                    match answer.json::<Value>().await {
                        Ok(body) if !status.is_server_error() => return Reply { status, body },
                        Ok(body) => last = format!("{status} {body}"),
                        Err(error) => last = error.to_string(),
                    }
                }
                Err(error) => last = error.to_string(),
            }
            self.figures.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(dice.u64(20..300))).await;
        }
        panic!("nobody could answer {method} {path} in time; at last: {last}");
    }

    fn tell(&self, session: &str, told: Told) {
        assert!(self.told.lock().unwrap().insert(session.to_owned(), told).is_none(), "one session, one client");
    }
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    body: Value,
}

impl Reply {
    fn text(&self, member: &str) -> &str {
        self.body[member].as_str().unwrap_or_else(|| panic!("no {member} in {self:?}"))
    }
}

async fn upload_until(world: Arc<World>, client: usize, seed: u64, stopped: watch::Receiver<bool>) {
    let mut dice = fastrand::Rng::with_seed(seed.wrapping_add(client as u64));
    // A quarter of the clients share the tenant under a quota.
    let tenant = usize::from(client % 4 == 3);
    for number in 0.. {
        if *stopped.borrow() {
            return;
        }
        upload(&world, &mut dice, tenant, &format!("client-{client}"), &format!("file-{number}")).await;
    }
}

/// One file from its session to one of the ends that a client can make of it.
async fn upload(world: &World, dice: &mut fastrand::Rng, tenant: usize, batch: &str, reference: &str) {
    let size = if dice.bool() { dice.usize(1..=CHUNK) } else { dice.usize(CHUNK + 1..=6 * CHUNK) };
    let mut bytes = vec![0; size];
    dice.fill(&mut bytes);
    let body = json!({
        "file_name": "file.bin", "file_size": size, "batch_reference": batch, "client_reference": reference,
    });
    let opened = world.ask(dice, tenant, Method::POST, "/app/uploads/initiate", &body).await;
    if opened.status == StatusCode::CONFLICT {
        assert_eq!(opened.text("code"), "quota-exceeded", "{opened:?}");
        world.figures.refused_by_quota.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
        return;
    }
    assert!(opened.status.is_success(), "{opened:?}");
    assert_eq!(opened.text("status"), "UPLOADING", "{opened:?}");
    let id = opened.text("upload_session_id").to_owned();

    let end = dice.u8(..20);
    let parts = size.div_ceil(CHUNK);
    // One in ten is left alone; the tenant under a quota would soon have no room, so less often there.
    if end < 2 && (tenant == 0 || end == 0 && dice.u8(..8) == 0) {
        send(world, dice, tenant, &opened, &bytes, dice.clone().usize(..parts)).await;
        return world.tell(&id, Told::Abandoned);
    }
    if end < 5 {
        send(world, dice, tenant, &opened, &bytes, dice.clone().usize(..=parts)).await;
        let answer = world.ask(dice, tenant, Method::POST, &format!("/app/uploads/{id}/cancel"), &json!({})).await;
        assert_eq!((answer.status, answer.text("status")), (StatusCode::OK, "CANCELLED"), "{answer:?}");
        return world.tell(&id, Told::Cancelled);
    }
    send(world, dice, tenant, &opened, &bytes, parts).await;
    let complete = json!({ "upload_session_id": id });
    let path = "/app/assets/upload/complete";
    let mut other_dice = dice.fork();
    let answer = match end {
        // Two at once, most often to two replicas.
        5..8 => {
            let (one, other) = tokio::join!(
                world.ask(dice, tenant, Method::POST, path, &complete),
                world.ask(&mut other_dice, tenant, Method::POST, path, &complete),
            );
            assert!(other.status.is_success(), "{other:?}");
            assert_eq!(one.body["asset_id"], other.body["asset_id"]);
            one
        }
        // Against a cancel: whoever wins, both are told the same.
        8..10 => {
            let (cancel, nothing) = (format!("/app/uploads/{id}/cancel"), json!({}));
            let (completed, cancelled) = tokio::join!(
                world.ask(dice, tenant, Method::POST, path, &complete),
                world.ask(&mut other_dice, tenant, Method::POST, &cancel, &nothing),
            );
            if completed.status == StatusCode::CONFLICT {
                assert_eq!(completed.text("upload_status"), "CANCELLED", "{completed:?}");
                assert_eq!(cancelled.text("status"), "CANCELLED", "{cancelled:?}");
                return world.tell(&id, Told::Cancelled);
            }
            assert_eq!(cancelled.text("status"), "COMPLETED", "{cancelled:?}");
            completed
        }
        _ => world.ask(dice, tenant, Method::POST, path, &complete).await,
    };
    assert!(answer.status.is_success(), "{answer:?}");
    let asset = answer.text("asset_id").to_owned();
    world.tell(&id, Told::Completed { asset, sha256: digest(&SHA256, &bytes).as_ref().to_vec() });
}

/// Sends the first `count` parts straight to the store; of a direct session its one body.
async fn send(world: &World, dice: &mut fastrand::Rng, tenant: usize, session: &Reply, bytes: &[u8], count: usize) {
    if count == 0 {
        return;
    }
    if session.text("upload_type") == "direct" {
        return put(world, &session.body, bytes).await;
    }
    let path = format!("/app/uploads/{}/multipart-part-urls", session.text("upload_session_id"));
    let urls = world.ask(dice, tenant, Method::POST, &path, &json!({ "from": 1, "to": count })).await;
    assert!(urls.status.is_success(), "{urls:?}");
    let urls = urls.body["parts"].as_array().unwrap();
    for (url, part) in urls.iter().zip(bytes.chunks(CHUNK)) {
        put(world, url, part).await;
    }
}

async fn put(world: &World, to: &Value, bytes: &[u8]) {
    let mut request = world.http.put(to["upload_url"].as_str().unwrap()).body(bytes.to_vec());
    for (name, value) in to["upload_headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

async fn pause(dice: &mut fastrand::Rng, millis: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(dice.u64(millis))).await;
}

async fn kill_replicas(world: Arc<World>, seed: u64, stopped: watch::Receiver<bool>) {
    let mut dice = fastrand::Rng::with_seed(seed ^ 1);
    while !*stopped.borrow() {
        pause(&mut dice, 500..3_000).await;
        let _trouble = world.troubles.read().await;
        world.restart_the_dead().await;
        let replica = dice.usize(..REPLICAS);
        let child = world.replicas[replica].lock().await.take();
        child.expect("each is started again before the next dies").kill().await.unwrap();
        world.figures.kills.fetch_add(1, Ordering::Relaxed);
        pause(&mut dice, 10..1_000).await;
        world.start_replica(replica).await;
    }
}

async fn break_the_store(world: Arc<World>, seed: u64, stopped: watch::Receiver<bool>) {
    let mut dice = fastrand::Rng::with_seed(seed ^ 2);
    let faults = world.store.faults();
    while !*stopped.borrow() {
        pause(&mut dice, 100..1_500).await;
        let _trouble = world.troubles.read().await;
        let fault = match dice.u8(..6) {
            0 => Fault::DropRequest,
            1 | 2 => Fault::DropAnswer,
            3 => Fault::CutAnswer,
            4 => Fault::Answer(503, "SlowDown"),
            _ => Fault::Hang,
        };
        if dice.u8(..4) == 0 {
            faults.order_all(fault);
        } else {
            let op = dice.choice(Op::ALL).unwrap();
            faults.order(op, fault);
        }
        world.figures.store_faults.fetch_add(1, Ordering::Relaxed);
        pause(&mut dice, 50..2_000).await;
        faults.heal();
    }
}

async fn cut_the_database(world: Arc<World>, seed: u64, stopped: watch::Receiver<bool>) {
    let mut dice = fastrand::Rng::with_seed(seed ^ 3);
    while !*stopped.borrow() {
        pause(&mut dice, 2_000..6_000).await;
        let _trouble = world.troubles.read().await;
        world.database.cut().await;
        world.figures.database_cuts.fetch_add(1, Ordering::Relaxed);
        pause(&mut dice, 0..500).await;
        world.database.heal().await;
    }
}

/// The database or the store stays connected and says nothing, or a replica is stopped and continued, with whatever it has
/// in its hand. The others, or all of them, serve again soon.
async fn fall_silent(world: Arc<World>, seed: u64, stopped: watch::Receiver<bool>) {
    let mut dice = fastrand::Rng::with_seed(seed ^ 4);
    for turn in dice.usize(..3).. {
        pause(&mut dice, 1_000..6_000).await;
        if *stopped.borrow() {
            return;
        }
        let _alone = world.troubles.write().await;
        world.restart_the_dead().await;
        for replica in 0..REPLICAS {
            world.wait_until_ready(replica).await;
        }
        let all: Vec<usize> = (0..REPLICAS).collect();
        match turn % 3 {
            0 => {
                world.database.silence();
                world.figures.database_silences.fetch_add(1, Ordering::Relaxed);
                pause(&mut dice, 500..8_000).await;
                world.database.heal().await;
                world.all_serve(&mut dice, &all).await;
            }
            1 => {
                world.store.faults().order_all(Fault::Hang);
                world.figures.store_silences.fetch_add(1, Ordering::Relaxed);
                pause(&mut dice, 500..8_000).await;
                world.store.heal();
                world.all_serve(&mut dice, &all).await;
            }
            _ => {
                let frozen = dice.usize(..REPLICAS);
                world.signal(frozen, "-STOP").await;
                world.figures.freezes.fetch_add(1, Ordering::Relaxed);
                let others: Vec<usize> = (0..REPLICAS).filter(|replica| *replica != frozen).collect();
                world.all_serve(&mut dice, &others).await;
                pause(&mut dice, 0..8_000).await;
                world.signal(frozen, "-CONT").await;
                world.all_serve(&mut dice, &all).await;
            }
        }
    }
}

/// Hears of a tenant's sessions from any replica, and again from another one after the last event that it has heard; what
/// it has heard in the end.
async fn listen_until(
    world: Arc<World>,
    mut dice: fastrand::Rng,
    tenant: usize,
    begun: tokio::sync::oneshot::Sender<()>,
    enough: CancellationToken,
) -> Heard {
    let (mut heard, mut last, mut begun) = (BTreeSet::new(), None, Some(begun));
    while !enough.is_cancelled() {
        tokio::select! {
            () = enough.cancelled() => {}
            () = world.listen(&mut dice, tenant, &mut last, &mut heard, &mut begun) => {}
        }
        pause(&mut dice, 20..300).await;
    }
    heard
}

/// At no moment does the tenant hold more than it may.
async fn watch_the_quota(world: Arc<World>, stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let (live, bytes) = world.usage("bound").await;
        assert!(live <= QUOTA_LIVE && bytes <= QUOTA_BYTES, "{live} live sessions and {bytes} bytes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl World {
    async fn signal(&self, replica: usize, signal: &str) {
        let child = self.replicas[replica].lock().await;
        let pid = child.as_ref().and_then(Child::id).expect("it runs").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// Each of these replicas opens a session of either kind and ends it, soon.
    async fn all_serve(&self, dice: &mut fastrand::Rng, replicas: &[usize]) {
        let begun = Instant::now();
        for replica in replicas {
            for file_size in [1, 2 * CHUNK] {
                let reference = dice.u128(..).to_string();
                let body = json!({
                    "file_name": "probe", "file_size": file_size, "batch_reference": "probe", "client_reference": reference,
                });
                let opened = self.soon(*replica, begun, "/app/uploads/initiate", &body).await;
                let id = opened.text("upload_session_id");
                let cancelled = self.soon(*replica, begun, &format!("/app/uploads/{id}/cancel"), &json!({})).await;
                assert_eq!(cancelled.text("status"), "CANCELLED", "{cancelled:?}");
                self.tell(id, Told::Cancelled);
            }
        }
        let taken = u64::try_from(begun.elapsed().as_millis()).unwrap();
        self.figures.slowest_recovery.fetch_max(taken, Ordering::Relaxed);
    }

    async fn soon(&self, replica: usize, begun: Instant, path: &str, body: &Value) -> Reply {
        let url = format!("http://127.0.0.1:{}{path}", self.ports[replica]);
        let mut last = String::new();
        while begun.elapsed() < WELL_WITHIN {
            let left = WELL_WITHIN - begun.elapsed();
            let request = self.http.post(&url).bearer_auth(&self.tokens[0]).timeout(left).json(body);
            match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    let status = answer.status();
                    return Reply { status, body: answer.json().await.unwrap() };
                }
                Ok(answer) => last = format!("{} {}", answer.status(), answer.text().await.unwrap_or_default()),
                Err(error) => last = format!("{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.log(replica)).unwrap();
        panic!("replica {replica} does not serve {path} after {:?}: {last}\n{}", begun.elapsed(), tail(&log));
    }

    /// One stream from any replica, to its end.
    async fn listen(
        &self,
        dice: &mut fastrand::Rng,
        tenant: usize,
        last: &mut Option<String>,
        heard: &mut Heard,
        begun: &mut Option<tokio::sync::oneshot::Sender<()>>,
    ) {
        let port = self.ports[dice.usize(..REPLICAS)];
        let mut request =
            self.http.get(format!("http://127.0.0.1:{port}/app/events")).bearer_auth(&self.tokens[tenant]);
        if let Some(last) = &last {
            request = request.header("Last-Event-ID", last);
        }
        let Ok(mut stream) = request.send().await else { return };
        if stream.status() != StatusCode::OK {
            return;
        }
        self.figures.streams.fetch_add(1, Ordering::Relaxed);
        let mut text = String::new();
        // One that says nothing for as long as a client waits for an answer is left.
        while let Ok(Some(chunk)) = stream.chunk().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((block, rest)) = text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                if let (Some(name), Some(data)) = (field("event"), field("data")) {
                    let data: Value = serde_json::from_str(data).unwrap();
                    heard.insert((data["upload_session_id"].as_str().unwrap().to_owned(), name.to_owned()));
                    self.figures.events.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(id) = field("id") {
                    *last = Some(id.to_owned());
                    if let Some(begun) = begun.take() {
                        begun.send(()).unwrap();
                    }
                }
                text = rest.to_owned();
            }
        }
    }

    /// Gives the readers time for the last events, and says what none of a tenant's may have missed and one has.
    async fn unheard(&self, readers: Vec<(usize, JoinHandle<Heard>)>, enough: &CancellationToken) -> Vec<String> {
        // A stream that hangs on a replica that is gone is left by then, and what was missed is read from the table.
        tokio::time::sleep(WELL_WITHIN).await;
        enough.cancel();
        let rows = &self.database.rows;
        let tenants = tenant::Entity::find().all(rows).await.unwrap();
        let events = upload_event::Entity::find().all(rows).await.unwrap();
        let mut wrong = Vec::new();
        for (tenant, heard) in readers {
            let slug = ["free", "bound"][tenant];
            let id = tenants.iter().find(|tenant| tenant.slug == slug).unwrap().id;
            let heard = heard.await.unwrap();
            for event in events.iter().filter(|event| event.tenant_id == id) {
                let Some(name) = public_name(&event.event) else { continue };
                if !heard.contains(&(event.upload_session_id.to_string(), name.to_owned())) {
                    wrong.push(format!("a reader of {slug} has not heard of {name} of {}", event.upload_session_id));
                }
            }
        }
        wrong
    }

    /// As counted.
    async fn usage(&self, slug: &str) -> (i64, i64) {
        let rows = &self.database.rows;
        let tenants = tenant::Entity::find().all(rows).await.unwrap();
        let id = tenants.into_iter().find(|tenant| tenant.slug == slug).unwrap().id;
        let shares = tenant_usage::Entity::find().all(rows).await.unwrap();
        let own = || shares.iter().filter(|share| share.tenant_id == id);
        (own().map(|share| share.live_sessions).sum(), own().map(|share| share.bytes).sum())
    }

    /// As a supervisor does: a replica gives up where it finds no database at its start.
    async fn restart_the_dead(&self) {
        for replica in 0..REPLICAS {
            let ended = self.replicas[replica].lock().await.as_mut().is_none_or(|c| c.try_wait().unwrap().is_some());
            if ended {
                let log = std::fs::read_to_string(self.log(replica)).unwrap();
                let last = tail(&log);
                // It says why, and says so in good order.
                assert!(last.lines().any(|line| line.starts_with("quaymaster: the ")), "{last}");
                self.figures.restarts.fetch_add(1, Ordering::Relaxed);
                self.start_replica(replica).await;
            }
        }
    }

    async fn wait_until_ready(&self, replica: usize) {
        let url = format!("http://127.0.0.1:{}/readyz", self.ports[replica]);
        let begun = Instant::now();
        while !self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(begun.elapsed() < Duration::from_secs(30), "replica {replica} does not become ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets the servers come to rest, and runs the passes until they find nothing more.
    async fn settle(&self) {
        self.restart_the_dead().await;
        for replica in 0..REPLICAS {
            self.wait_until_ready(replica).await;
            if let Some(mut child) = self.replicas[replica].lock().await.take() {
                let pid = child.id().expect("nobody has waited for it yet").to_string();
                assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
                let ended = child.wait().await.unwrap();
                let log = std::fs::read_to_string(self.log(replica)).unwrap();
                assert!(ended.success(), "replica {replica} does not end well on SIGTERM:\n{}", tail(&log));
            }
        }
        self.start_replica(0).await;
        let begun = Instant::now();
        loop {
            let mut found = 0;
            for pass in [
                &["reconcile"][..],
                &["detect-abandoned", "--older-than", "0s"],
                &["cleanup", "--older-than", "0s"],
                &["orphans", "--older-than", "0s"],
            ] {
                let args = [&["uploads"], pass, &["--json"]].concat();
                // One of the same name may run just now, by the timetable.
                let (succeeded, output) = self.try_command(&args).await;
                let report: Value = serde_json::from_str(&output).unwrap_or_default();
                if !succeeded || report["found"] != 0 {
                    println!("chaos: {}: {}", pass[0], output.trim());
                    found += 1;
                }
            }
            // The timetable goes on ordering passes; what clients are owed is something else.
            let jobs = self.command(&["job", "list", "--kind", "promote", "--json"]).await;
            let promotions = jobs.trim().lines().count();
            if found == 0 && promotions == 0 {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(180), "the passes come to no end; jobs: {jobs}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Nothing lost, nothing twice, nothing left over, and every sum right.
    async fn check(&self, mut wrong: Vec<String>) {
        let rows = &self.database.rows;
        let sessions = upload_session::Entity::find().all(rows).await.unwrap();
        let assets = asset::Entity::find().all(rows).await.unwrap();
        let told = self.told.lock().unwrap().clone();

        let by_id: BTreeMap<String, _> = sessions.iter().map(|session| (session.id.to_string(), session)).collect();
        let (mut completed, mut cancelled, mut abandoned) = (0, 0, 0);
        for (id, told) in &told {
            let status = by_id.get(id).map(|session| session.status);
            let fits = match told {
                Told::Completed { asset, sha256 } => {
                    completed += 1;
                    wrong.extend(self.asset_is_there(&assets, id, asset, sha256).await.err());
                    status == Some(Status::Completed)
                }
                Told::Cancelled => {
                    cancelled += 1;
                    status == Some(Status::Cancelled)
                }
                Told::Abandoned => {
                    abandoned += 1;
                    status == Some(Status::Failed)
                }
            };
            if !fits {
                wrong.push(format!("session {id} is {status:?}, and its client was told {told:?}"));
            }
        }
        for session in &sessions {
            if matches!(session.status, Status::Initiating | Status::Uploading) {
                wrong.push(format!("session {} is stuck as {:?}", session.id, session.status));
            }
        }
        let made = assets.len();
        if made != completed {
            wrong.push(format!("{made} assets of {completed} completed uploads"));
        }
        wrong.extend(self.the_bucket_holds_only(&assets).await);
        for slug in ["free", "bound"] {
            wrong.extend(self.usage_is_exact(slug, &sessions).await);
        }
        let (verified, output) = self.try_command(&["audit", "verify", "--json"]).await;
        if !verified {
            wrong.push(format!("audit verify: {output}"));
        }
        let figures = &self.figures;
        let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        println!(
            "chaos: {} sessions: {completed} completed, {cancelled} cancelled, {abandoned} abandoned; {} refused by quota\n\
             chaos: {} requests, {} of them again; {} kills, {} starts without a database, {} faults of the store, \
             {} cuts of the database\n\
             chaos: {} silences of the database, {} of the store, {} freezes; the slowest recovery took {} ms\n\
             chaos: {} events heard on {} streams\n\
             chaos: {} wrong",
            sessions.len(),
            count(&figures.refused_by_quota),
            count(&figures.requests),
            count(&figures.retries),
            count(&figures.kills),
            count(&figures.restarts),
            count(&figures.store_faults),
            count(&figures.database_cuts),
            count(&figures.database_silences),
            count(&figures.store_silences),
            count(&figures.freezes),
            count(&figures.slowest_recovery),
            count(&figures.events),
            count(&figures.streams),
            wrong.len(),
        );
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    async fn asset_is_there(
        &self,
        assets: &[asset::Model],
        session: &str,
        id: &str,
        sha256: &[u8],
    ) -> Result<(), String> {
        let session: SessionId = session.parse().unwrap();
        let own: Vec<_> = assets.iter().filter(|asset| asset.upload_session_id == session).collect();
        let [asset] = own.as_slice() else { return Err(format!("session {session} has {} assets", own.len())) };
        if asset.id.to_string() != id || asset.status != asset::Status::Ready {
            return Err(format!("session {session} promised asset {id}, and has {asset:?}"));
        }
        let stored = self.store.read(&asset.object_key).await;
        if digest(&SHA256, &stored).as_ref() == sha256 {
            Ok(())
        } else {
            Err(format!("asset {id} has other bytes than were sent"))
        }
    }

    async fn the_bucket_holds_only(&self, assets: &[asset::Model]) -> Vec<String> {
        let keys: BTreeSet<_> = assets.iter().map(|asset| asset.object_key.as_str()).collect();
        let explained = |key: &str| key == "temp/uploads/.owner" || keys.contains(key);
        let objects = self.store.objects().await;
        let orphans = objects.iter().filter(|(key, _)| !explained(key)).map(|(key, _)| format!("orphan object {key}"));
        let uploads = self.store.uploads().await;
        orphans.chain(uploads.iter().map(|(key, id)| format!("orphan upload {id} of {key}"))).collect()
    }

    async fn usage_is_exact(&self, slug: &str, sessions: &[upload_session::Model]) -> Option<String> {
        let tenants = tenant::Entity::find().all(&self.database.rows).await.unwrap();
        let id = tenants.into_iter().find(|tenant| tenant.slug == slug).unwrap().id;
        let own = sessions.iter().filter(|session| session.tenant_id == id && session.status == Status::Completed);
        let (counted, bytes) = (self.usage(slug).await, own.map(|session| session.file_size).sum());
        (counted != (0, bytes)).then(|| format!("{slug} holds {bytes} bytes, and is counted {counted:?}"))
    }

    async fn finish(&self) {
        self.replicas[0].lock().await.take().expect("it was started").kill().await.unwrap();
        self.store.remove().await;
        self.database.remove().await;
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
