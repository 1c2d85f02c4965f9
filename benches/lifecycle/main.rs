//! The cost of finding and failing abandoned sessions among few and among many finished ones, and the cost of a direct
//! upload from its opening until its asset is READY. Run it by `scripts/bench-lifecycle`.
//!
//! Each size has its own database, with that many finished sessions (with all indexes and without their events) and 1,000
//! abandoned ones that were opened by the verb itself, each with a multipart upload in an embedded store.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use entity::TenantId;
use entity::upload_session::FailureReason;
use futures_util::{StreamExt, stream};
use quaymaster::caller::{Actor, Brands, Caller, Permissions};
use quaymaster::engine::Engine;
use quaymaster::input::{FileName, MediaType, Metadata, Reference, Slug, Text as _};
use quaymaster::pass::{Options, Run};
use quaymaster::session::rows::{Queue, queued};
use quaymaster::session::{self, Change, Completion, Guard, NewUpload, Session};
use quaymaster::settings::Settings;
use quaymaster::{feed, jobs, work};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryTrait, Statement, TransactionTrait};
use serde_json::Value;
use tempfile::TempDir;

const SIZES: [u64; 2] = [100_000, 10_000_000];
const ABANDONED: usize = 1_000;
/// Direct uploads whose cost is measured.
const DIRECT: usize = 1_000;
/// Runs of each statement; the figure is the median.
const RUNS: usize = 51;
/// The largest ratio of a statement's cost in the last database to its cost in the first.
const RATIO_MAX: f64 = 2.0;
/// Rows in one INSERT of finished sessions.
const CHUNK: u64 = 500_000;
const THREADS: usize = 2;

fn main() -> ExitCode {
    // `cargo bench` adds --bench to the arguments.
    let sizes: Result<Vec<u64>, _> =
        std::env::args().skip(1).filter(|arg| arg != "--bench").map(|arg| arg.parse()).collect();
    let sizes = match sizes {
        Ok(sizes) if sizes.is_empty() => SIZES.to_vec(),
        Ok(sizes) => sizes,
        Err(error) => {
            eprintln!("not a number of sessions: {error}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap();
    let figures: Vec<Figures> = sizes.iter().map(|size| runtime.block_on(measure(*size))).collect();
    if print(&figures) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The cost of one statement.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Time for planning and execution, as PostgreSQL reports it.
    millis: f64,
    /// Pages of 8 KiB, found in the cache or read.
    buffers: f64,
}

#[derive(Debug)]
struct Figures {
    finished: u64,
    table_mib: f64,
    select: Cost,
    fail: Cost,
    pass: Duration,
    cleanup: Duration,
    direct: Direct,
    hot: Vec<Updates>,
}

/// Updates of one table, and how many of them wrote no index (heap-only tuples).
#[derive(Debug)]
struct Updates {
    table: String,
    all: i64,
    hot: i64,
}

/// The cost of direct uploads, each with its promotion. The log also includes the places of their events.
#[derive(Debug)]
struct Direct {
    millis: f64,
    wal: Wal,
    events_per_sec: f64,
}

/// Bytes of write-ahead log for one upload.
#[derive(Debug)]
struct Wal {
    records: f64,
    /// Whole pages: those that are written for the first time since the last checkpoint.
    pages: f64,
}

async fn measure(finished: u64) -> Figures {
    let home = Home::new().await;
    let engine = &home.engine;
    eprintln!("bench: {finished} finished sessions");
    let created =
        quaymaster::tenant::create(engine, &Actor::Command, &Slug::parse("bench").unwrap(), &[Slug::main()], None)
            .await
            .unwrap();
    let brand = created.brands["main"];
    seed_finished(engine, created.tenant_id, brand.0, finished).await;
    let caller = Caller {
        tenant: created.tenant_id,
        actor: Actor::User("ann".to_owned()),
        brands: Brands::These(vec![brand]),
        permissions: Permissions::parse(["*"]),
    };
    open_abandoned(engine, &caller).await;
    engine.clock.advance(TimeDelta::hours(25));
    engine.db.conn().execute_unprepared("VACUUM ANALYZE").await.unwrap();

    let cutoff = engine.clock.now() - TimeDelta::hours(24);
    let select = cost_of_select(engine, cutoff).await;
    let fail = cost_of_failing(engine, cutoff).await;
    let table = "SELECT pg_total_relation_size('upload_session')";
    let table = Statement::from_string(DbBackend::Postgres, table);
    let bytes: i64 = engine.db.conn().query_one_raw(table).await.unwrap().unwrap().try_get_by_index(0).unwrap();

    let begun = Instant::now();
    let report = session::detect_abandoned(engine, &run(None)).await.unwrap();
    let pass = begun.elapsed();
    assert_eq!((report.found, report.done), (ABANDONED as u64, ABANDONED as u64), "{report:?}");
    let begun = Instant::now();
    let report = session::cleanup(engine, &run(Some(TimeDelta::zero()))).await.unwrap();
    let cleanup = begun.elapsed();
    assert_eq!((report.found, report.done), (ABANDONED as u64, ABANDONED as u64), "{report:?}");
    let direct = cost_of_direct(engine, &caller).await;
    let hot = home.remove().await;
    Figures { finished, table_mib: bytes as f64 / f64::from(1 << 20), select, fail, pass, cleanup, direct, hot }
}

fn run(older_than: Option<TimeDelta>) -> Run {
    Run::new(Options { older_than, dry_run: false }, Actor::System, Duration::from_secs(3600), Default::default())
}

/// A database on the PostgreSQL of `scripts/with-backends`, a store in this process, and the engine between them.
struct Home {
    engine: Engine,
    admin: String,
    name: String,
    _store: embedded_s3::Server,
    _dir: TempDir,
}

impl Home {
    async fn new() -> Self {
        let admin = std::env::var("QUAYMASTER_TEST_POSTGRES").expect("run this with scripts/bench-lifecycle");
        let name = format!("lifecycle_{}", uuid::Uuid::new_v4().simple());
        execute(&admin, &format!("CREATE DATABASE {name}")).await;
        let (server, _) = admin.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}");
        let dir = tempfile::Builder::new().prefix("quaymaster-bench").tempdir().unwrap();
        let config = embedded_s3::Config {
            root: dir.path().join("store"),
            access_key_id: "BENCH".to_owned(),
            secret_access_key: "a-secret-for-benchmarks".to_owned(),
            ..embedded_s3::Config::default()
        };
        let store = embedded_s3::start(config.clone()).await.unwrap();
        let endpoint = format!("http://{}", store.addr());
        let env = [
            ("DATABASE_URL", url.as_str()),
            ("JWT_SECRET", "a-secret-for-benchmarks-that-is-long-enough"),
            ("AUDIT_KEY", "an-audit-key-for-benchmarks-that-is-long-enough"),
            ("AWS_BUCKET", "bench"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_S3", &endpoint),
            ("AWS_ACCESS_KEY_ID", &config.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &config.secret_access_key),
            ("QUAYMASTER_STORAGE__PATH_STYLE", "true"),
            // Building an index takes a while.
            ("QUAYMASTER_DATABASE__STATEMENT_TIMEOUT_SECS", "3600"),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let engine = quaymaster::start::make(Settings::parse(None, env).unwrap()).await.unwrap();
        engine.storage.create_bucket("bench").await.unwrap();
        Self { engine, admin, name, _store: store, _dir: dir }
    }

    /// Drops the database. Returns the updates since it was created.
    async fn remove(self) -> Vec<Updates> {
        // A connection reports its statistics when it ends.
        self.engine.db.close().await.unwrap();
        let (server, _) = self.admin.rsplit_once('/').unwrap();
        let db = sea_orm::Database::connect(format!("{server}/{}", self.name)).await.unwrap();
        let sql = "SELECT CAST(relname AS text), n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
            WHERE n_tup_upd > 0 ORDER BY n_tup_upd DESC";
        let rows = db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
        let updates = rows.iter().map(|row| Updates {
            table: row.try_get_by_index(0).unwrap(),
            all: row.try_get_by_index(1).unwrap(),
            hot: row.try_get_by_index(2).unwrap(),
        });
        let updates = updates.collect();
        db.close().await.unwrap();
        execute(&self.admin, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        updates
    }
}

async fn execute(url: &str, sql: &str) {
    let db = sea_orm::Database::connect(url).await.unwrap();
    db.execute_unprepared(sql).await.unwrap();
    db.close().await.unwrap();
}

/// Inserts sessions that ended within two months (so that none is past its retention) and whose storage is cleared, without
/// the triggers' checks. Builds their indexes after the last one.
async fn seed_finished(engine: &Engine, tenant: TenantId, brand: uuid::Uuid, count: u64) {
    let tx = engine.db.conn().bare().begin().await.unwrap();
    let indexes = "SELECT indexname, indexdef FROM pg_indexes
        WHERE tablename = 'upload_session' AND indexname <> 'upload_session_pkey'";
    let rows = tx.query_all_raw(Statement::from_string(DbBackend::Postgres, indexes)).await.unwrap();
    let mut definitions = Vec::new();
    for row in rows {
        let (name, definition): (String, String) = (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap());
        tx.execute_unprepared(&format!("DROP INDEX {name}")).await.unwrap();
        definitions.push(definition);
    }
    tx.execute_unprepared("SET LOCAL session_replication_role = replica").await.unwrap();
    tx.execute_unprepared("SET LOCAL maintenance_work_mem = '512MB'").await.unwrap();
    let started = Utc::now().to_rfc3339();
    for first in (1..=count).step_by(usize::try_from(CHUNK).unwrap()) {
        let last = count.min(first + CHUNK - 1);
        // Of ten sessions eight are completed, one is failed and one is cancelled.
        let sql = format!(
            "INSERT INTO upload_session (tenant_id, id, brand_id, created_by, status, version, event_seq, chain_head,
                failure_reason, upload_type, profile, url_ttl_secs, bucket, file_name, file_size, mime_type, metadata,
                batch_reference, client_reference, asset_id, created_at, updated_at, last_activity_at, expires_at,
                completed_at, failed_at, cancelled_at, storage_cleared_at)
             SELECT '{tenant}', id, '{brand}', 'user-' || n % 1000, status, 3, 4, decode(repeat('ab', 32), 'hex'),
                CASE status WHEN 'FAILED' THEN 'abandoned' END, 'direct', 'default', 900, 'bench', n || '.png', 1000,
                'image/png', '{{}}', 'batch-' || n / 100, 'row-' || n, id, at, at, at, at + interval '7 days',
                CASE status WHEN 'COMPLETED' THEN at END, CASE status WHEN 'FAILED' THEN at END,
                CASE status WHEN 'CANCELLED' THEN at END, at + interval '1 hour'
             FROM (SELECT n, lpad(to_hex(n), 32, '0')::uuid AS id,
                    timestamptz '{started}' - interval '2 days' - n * interval '60 days' / {count} AS at,
                    CASE n % 10 WHEN 0 THEN 'FAILED' WHEN 1 THEN 'CANCELLED' ELSE 'COMPLETED' END AS status
                FROM generate_series({first}, {last}) AS n) AS numbered"
        );
        tx.execute_unprepared(&sql).await.unwrap();
    }
    for definition in definitions {
        tx.execute_unprepared(&definition).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn open_abandoned(engine: &Engine, caller: &Caller) {
    let opened = stream::iter(0..ABANDONED).map(|n| async move {
        let new = NewUpload {
            file_name: FileName::parse(format!("{n}.mov")).unwrap(),
            file_size: 6 << 20,
            mime_type: MediaType::parse("video/quicktime").unwrap(),
            brand_id: None,
            client_reference: None,
            batch_reference: None,
            fingerprint: None,
            checksum_sha256: None,
            metadata: Metadata::default(),
            idempotency_key: None,
        };
        session::initiate(engine, caller, new).await.unwrap();
    });
    opened.buffer_unordered(8).collect::<Vec<_>>().await;
}

async fn cost_of_direct(engine: &Engine, caller: &Caller) -> Direct {
    while feed::sequence(engine).await.unwrap() > 0 {}
    // How many whole pages are in the log depends on the time of the last checkpoint: make one now.
    engine.db.conn().execute_unprepared("CHECKPOINT").await.unwrap();
    let (client, workers) = (&reqwest::Client::new(), jobs::start(engine, work::job));
    let (before, begun) = (end_of_wal(engine).await, Instant::now());
    let uploads = stream::iter(0..DIRECT).map(|n| async move {
        let new = NewUpload {
            file_name: FileName::parse(format!("{n}.png")).unwrap(),
            file_size: 1_000,
            mime_type: MediaType::parse("image/png").unwrap(),
            brand_id: None,
            client_reference: Some(Reference::parse(format!("row-{n}")).unwrap()),
            batch_reference: Some(Reference::parse("direct").unwrap()),
            fingerprint: None,
            checksum_sha256: None,
            metadata: Metadata::default(),
            idempotency_key: None,
        };
        let opened = session::initiate(engine, caller, new).await.unwrap();
        let put = opened.put.unwrap();
        let request =
            put.headers.iter().fold(client.put(&put.url), |request, (name, value)| request.header(*name, value));
        request.body(vec![0; 1_000]).send().await.unwrap().error_for_status().unwrap();
        session::complete(engine, caller, opened.session.id, &Completion::default()).await.unwrap();
    });
    uploads.buffer_unordered(8).collect::<Vec<_>>().await;
    while is_any_job_left(engine).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let millis = begun.elapsed().as_secs_f64() * 1e3 / DIRECT as f64;
    workers.stop(Duration::from_secs(5)).await;
    let (begun, mut events) = (Instant::now(), 0);
    loop {
        match feed::sequence(engine).await.unwrap() {
            0 => break,
            placed => events += placed,
        }
    }
    let events_per_sec = events as f64 / begun.elapsed().as_secs_f64();
    Direct { millis, wal: wal_since(engine, &before).await, events_per_sec }
}

async fn is_any_job_left(engine: &Engine) -> bool {
    let any = Statement::from_string(DbBackend::Postgres, "SELECT EXISTS (SELECT 1 FROM job)");
    engine.db.conn().query_one_raw(any).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn end_of_wal(engine: &Engine) -> String {
    let sql = "SELECT CAST(pg_current_wal_insert_lsn() AS text)";
    let row = engine.db.conn().query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

async fn wal_since(engine: &Engine, before: &str) -> Wal {
    let conn = engine.db.conn();
    // Only flushed records can be read.
    conn.execute_unprepared("CREATE EXTENSION IF NOT EXISTS pg_walinspect; CHECKPOINT").await.unwrap();
    let sql = format!(
        "SELECT CAST(sum(record_size) AS float8), CAST(sum(fpi_size) AS float8)
         FROM pg_get_wal_stats('{before}', pg_current_wal_flush_lsn())"
    );
    let row = conn.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
    let of_one = |index| row.try_get_by_index::<f64>(index).unwrap() / DIRECT as f64;
    Wal { records: of_one(0), pages: of_one(1) }
}

async fn cost_of_select(engine: &Engine, cutoff: chrono::DateTime<Utc>) -> Cost {
    let query = queued(Queue::Idle(cutoff), None, engine.settings.lifecycle.batch_rows).build(DbBackend::Postgres);
    let mut costs = Vec::new();
    for _ in 0..RUNS {
        let tx = engine.db.conn().bare().begin().await.unwrap();
        costs.push(explain(&tx, &query.to_string()).await);
        tx.rollback().await.unwrap();
    }
    median(&costs)
}

/// Returns the cost of the UPDATE that fails a session: another session in each run, rolled back afterwards.
async fn cost_of_failing(engine: &Engine, cutoff: chrono::DateTime<Utc>) -> Cost {
    let idle: Vec<Session> = queued(Queue::Idle(cutoff), None, RUNS as u64).all(engine.db.conn()).await.unwrap();
    let mut costs = Vec::new();
    for session in idle {
        let change = Change::fail(&Actor::System, FailureReason::Abandoned).guarded(Guard::IdleSince(cutoff));
        let update = session::statement(engine, &session, &change).build(DbBackend::Postgres);
        let tx = engine.db.conn().bare().begin().await.unwrap();
        costs.push(explain(&tx, &format!("{update} RETURNING *")).await);
        tx.rollback().await.unwrap();
    }
    median(&costs)
}

async fn explain(tx: &DatabaseTransaction, sql: &str) -> Cost {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}");
    let row = tx.query_one_raw(Statement::from_string(DbBackend::Postgres, explain)).await.unwrap().unwrap();
    let plan: Value = row.try_get_by_index(0).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    Cost {
        millis: number(&plan[0]["Planning Time"]) + number(&plan[0]["Execution Time"]),
        buffers: number(&plan[0]["Plan"]["Shared Hit Blocks"]) + number(&plan[0]["Plan"]["Shared Read Blocks"]),
    }
}

fn median(costs: &[Cost]) -> Cost {
    let middle = |of: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Cost { millis: middle(|cost| cost.millis), buffers: middle(|cost| cost.buffers) }
}

/// Prints the figures. Returns whether each statement's cost in the last database is within [`RATIO_MAX`] of the first.
fn print(figures: &[Figures]) -> bool {
    println!("finished  table and indexes  select 500 idle        fail one               pass of {ABANDONED}  cleanup");
    for figure in figures {
        let Figures { finished, table_mib, select, fail, pass, cleanup, .. } = figure;
        let statement = |cost: &Cost| format!("{:.3} ms {:>6.0} buffers", cost.millis, cost.buffers);
        println!(
            "{finished:>8}  {table_mib:>13.0} MiB  {}  {}  {:>10.2} s  {:>6.2} s",
            statement(select),
            statement(fail),
            pass.as_secs_f64(),
            cleanup.as_secs_f64(),
        );
    }
    for Figures { finished, direct: Direct { millis, wal, events_per_sec }, .. } in figures {
        println!(
            "{finished:>8}  a direct upload until READY ({DIRECT} uploads, 8 at once): {millis:.2} ms, {:.0} bytes of \
             WAL records, {:.0} bytes of whole pages; {events_per_sec:.0} events a second get their places",
            wal.records, wal.pages
        );
    }
    for Figures { finished, hot, .. } in figures {
        let share = |of: &Updates| format!("{} {:.0} % of {}", of.table, of.hot as f64 * 100.0 / of.all as f64, of.all);
        println!(
            "{finished:>8}  updates that write no index: {}",
            hot.iter().map(share).collect::<Vec<_>>().join(", ")
        );
    }
    let (Some(first), Some(last)) = (figures.first(), figures.last()) else { return true };
    let mut is_well = true;
    for (name, first, last) in [("select", first.select, last.select), ("fail", first.fail, last.fail)] {
        for (what, ratio) in [("time", last.millis / first.millis), ("buffers", last.buffers / first.buffers)] {
            let verdict = if ratio <= RATIO_MAX { "ok" } else { "OVER" };
            println!("{name}, {what}: last to first {ratio:.2}, at most {RATIO_MAX}: {verdict}");
            is_well &= ratio <= RATIO_MAX;
        }
    }
    is_well
}
