//! How much slower the requests of a quiet tenant are while a noisy tenant is at work.
//!
//! The quiet tenant opens sessions, asks for part URLs and completes sessions at a steady rate, however long the answers
//! take: first alone, then beside the noisy tenant, on the same server and for the same time. The figure is the 99th
//! percentile.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::kit::{Api, Database, MIB, Server, Site, Store, id_of};
use crate::load::{Times, millis};
use crate::noise::{Place, SORTS, Sort};
use crate::table::Row;

/// The largest ratio of the time beside the noisy tenant to the time alone.
const LIMIT: f64 = 3.0;
/// Of its 800 cycles the eighth-slowest is the 99th percentile: of fewer, one that was unlucky would be.
const PHASE: Duration = Duration::from_secs(40);
const WARM_UP: Duration = Duration::from_secs(3);
/// Time from the order to begin until the load counts as steady.
const SWELL: Duration = Duration::from_secs(2);
/// Time between the starts of two cycles.
const PACE: Duration = Duration::from_millis(50);
const PAIRS: [(Database, Store); 2] = [(Database::Sqlite, Store::Embedded), (Database::Postgres, Store::Garage)];
/// Priority of the quiet tenant's client, which would run on another machine: its wait for a processor must not count as
/// the server's time. If the system does not allow this priority, as for most users, the ratios are larger.
const FIRST: i32 = -10;
const FILE: &[u8] = &[b'x'; 10_000];
/// Number of parts, of the default size, in the session that part URLs are requested for.
const PARTS: usize = 100;
const VERBS: [&str; 3] = ["initiate", "part URL", "complete"];
/// The argument that makes this binary the load generator.
pub const MAKE_NOISE: &str = "make-noise";

/// Returns one part of the benchmark for each pair of back ends and each of these sorts.
pub fn parts(names: &[&'static str]) -> Vec<(String, BoxFuture<'static, Vec<Row>>)> {
    let mut parts = Vec::new();
    for (database, store) in PAIRS {
        for sort in SORTS.iter().filter(|sort| names.contains(&sort.name) && sort.only.is_none_or(|only| only == store))
        {
            let name = format!("{}, {} + {}", sort.name, database.name(), store.name());
            let rows: BoxFuture<'static, _> = Box::pin(run(name.clone(), sort, database, store));
            parts.push((name, rows));
        }
    }
    parts
}

/// Measures one sort on a server of its own, so that nothing is left over from another sort.
async fn run(name: String, sort: &'static Sort, database: Database, store: Store) -> Vec<Row> {
    let site = Site::new(database, store, &[]).await;
    let server = site.start().await;
    let quiet = Quiet::new(&server).await;
    let mut noise = Generator::start(sort, &site, &server).await;
    // Flush what an earlier sort left in memory: writing it to the disk would disturb this one.
    assert!(Command::new("sync").status().await.unwrap().success());
    let goes_first = set_priority(FIRST).await;
    quiet.cycles(WARM_UP).await;
    let alone = quiet.cycles(PHASE).await;
    noise.begin().await;
    sleep(SWELL).await;
    let beside = quiet.cycles(PHASE).await;
    let outcomes = noise.end().await;
    // A child process inherits the priority of the thread that starts it.
    assert!(!goes_first || set_priority(0).await);

    let mut rows = vec![Row::new(format!("{name}: outcomes of the load"), outcomes)];
    rows.extend(VERBS.iter().enumerate().map(|(verb, verb_name)| {
        let p99 = |cycles: &Cycles| millis(cycles.times[verb].percentile(99));
        let ratio = p99(&beside) / p99(&alone);
        Row::new(format!("{name}: {verb_name}"), format!("p99 {:.1} ms", p99(&beside)))
            .beside(format!("{:.1} ms alone", p99(&alone)))
            .ratio(ratio)
            .limit(format!("{LIMIT} ×"), ratio <= LIMIT)
    }));
    let failures: Vec<_> = [alone.failures, beside.failures].concat();
    if let Some(first) = failures.first() {
        let row = Row::new(format!("{name}: cycles that failed"), failures.len().to_string());
        rows.push(row.beside(first.chars().take(100).collect::<String>()).limit("none", false));
    }
    rows
}

/// Sets the nice value of this process's threads, from -20 to 19. Returns whether the system has allowed it.
async fn set_priority(nice: i32) -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().file_name());
    let mut command = Command::new("renice");
    command.args(["-n", &nice.to_string(), "-p"]).args(threads).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// The quiet tenant's client.
#[derive(Clone)]
struct Quiet {
    api: Api,
    part_url: String,
}

/// Times of each of [`VERBS`] in the cycles that succeeded, and why the others failed.
struct Cycles {
    times: [Times; 3],
    failures: Vec<String>,
}

impl Quiet {
    async fn new(server: &Server) -> Self {
        let api = server.client();
        let reel = api.initiate("reel.mov", PARTS as u64 * 8 * MIB).await;
        Self { api, part_url: format!("/app/uploads/{}/multipart-part-url", id_of(&reel)) }
    }

    /// Starts a cycle every [`PACE`], even if the previous one has not ended: slow answers must not lower the rate.
    async fn cycles(&self, lasting: Duration) -> Cycles {
        let (begun, mut ticks, mut cycles) = (Instant::now(), interval(PACE), JoinSet::new());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while begun.elapsed() < lasting {
            ticks.tick().await;
            let (quiet, part) = (self.clone(), cycles.len() % PARTS + 1);
            cycles.spawn(async move { quiet.cycle(part).await });
        }
        let (done, failed): (Vec<_>, Vec<_>) = cycles.join_all().await.into_iter().partition(Result::is_ok);
        let done: Vec<[Duration; 3]> = done.into_iter().flatten().collect();
        let times = [0, 1, 2].map(|verb| Times::new(done.iter().map(|times| times[verb]).collect(), begun.elapsed()));
        Cycles { times, failures: failed.into_iter().filter_map(Result::err).collect() }
    }

    async fn cycle(&self, part: usize) -> Result<[Duration; 3], String> {
        let (file, initiate) = self.timed("/app/uploads/initiate", &small_file()).await?;
        let (_, part_url) = self.timed(&self.part_url, &json!({ "part_number": part })).await?;
        self.api.put(&file, FILE).await?;
        let body = json!({ "upload_session_id": id_of(&file) });
        let (_, complete) = self.timed("/app/assets/upload/complete", &body).await?;
        Ok([initiate, part_url, complete])
    }

    async fn timed(&self, path: &str, body: &Value) -> Result<(Value, Duration), String> {
        let begun = Instant::now();
        let answer = self.api.try_call(Method::POST, path, Some(body)).await?;
        Ok((answer, begun.elapsed()))
    }
}

fn small_file() -> Value {
    json!({ "file_name": "note.txt", "file_size": FILE.len(), "mime_type": "text/plain" })
}

/// The process that generates the noisy tenant's load, see `noise.rs`. It is killed when this value is dropped.
struct Generator {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Generator {
    /// Returns once everything that the load needs is prepared.
    async fn start(sort: &Sort, site: &Site, server: &Server) -> Self {
        let host = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let tenant = "noisy".to_owned();
        let place = Place {
            server: host(&server.url),
            store: host(site.s3.endpoint()),
            token: site.another_tenant(&tenant),
            tenant,
            operator: site.operator_token(),
        };
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe().unwrap()).args([MAKE_NOISE, sort.name]);
        command.arg(serde_json::to_string(&place).unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (orders, lines) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut generator = Self { child, orders, lines: BufReader::new(lines).lines() };
        generator.line().await;
        generator
    }

    async fn begin(&mut self) {
        self.orders.write_all(b"\n").await.unwrap();
    }

    /// Ends the load. Returns its outcomes.
    async fn end(mut self) -> String {
        self.orders.write_all(b"\n").await.unwrap();
        let outcomes = self.line().await;
        self.child.wait().await.unwrap();
        outcomes
    }

    async fn line(&mut self) -> String {
        self.lines.next_line().await.unwrap().expect("the generator runs")
    }
}
