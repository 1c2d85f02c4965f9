//! Migrations beside a server of the version before, which goes on meanwhile. Only PostgreSQL has such a thing: with
//! SQLite the server is one process, which migrates before it serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use migration::{run, run_first};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait, Value};
use uuid::Uuid;

use crate::kit::TestDb;
use crate::kit::rows::{Kind, Place};

/// Changes that come before those of the queue: what a server of the version before knows, and one column more.
const BEFORE: u32 = 13;
/// How long a statement of a server may take beside a migration: a lock is waited for during a second, and the machine
/// may be busy.
const BOUND: Duration = Duration::from_secs(5);
/// How long others keep the migration from its locks.
const HELD: Duration = Duration::from_secs(10);

/// What a server of the version before asks of its tables, and how long the longest of it took.
async fn serve(db: DatabaseConnection, place: Place, stop: Arc<AtomicBool>) -> (u32, Duration) {
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    let id = |id: Uuid| Value::from(id);
    while !stop.load(Ordering::Relaxed) {
        let (session, job, now) = (Uuid::now_v7(), Uuid::now_v7(), Utc::now());
        let open = "INSERT INTO upload_session (tenant_id, id, brand_id, created_by, status, version, event_seq, chain_head,
                upload_type, profile, url_ttl_secs, bucket, file_name, file_size, mime_type, metadata, asset_id, created_at,
                updated_at, last_activity_at, expires_at)
            VALUES ($1, $2, $3, 'ann', 'INITIATING', 1, 1, '', 'direct', 'default', 900, 'bucket', 'a', 1, 'text/plain', '{}',
                $2, $4, $4, $4, $4)";
        let enqueue =
            "INSERT INTO job (id, kind, payload, priority, attempts, max_attempts, run_at, created_at, updated_at)
            VALUES ($1, 'promote', '{}', 0, 0, 10, $2, $2, $2)";
        let claim = "WITH due AS (SELECT id FROM job WHERE kind = 'promote' AND dead_at IS NULL AND run_at <= $1
                ORDER BY priority, run_at LIMIT 4 FOR UPDATE SKIP LOCKED)
            UPDATE job SET lease_token = $2, run_at = $1 + interval '60 s', attempts = attempts + 1
            WHERE id IN (SELECT id FROM due)";
        let bury =
            "INSERT INTO upload_tombstone (tenant_id, upload_session_id, status, event_seq, chain_head, positions,
            deleted_at, mac) VALUES ($1, $2, 'FAILED', 1, '', '[]', $3, '')";
        for (sql, values) in [
            (open, vec![id(place.tenant), id(session), id(place.brand), now.into()]),
            (
                "UPDATE upload_session SET status = 'UPLOADING', version = 2, event_seq = 2 WHERE tenant_id = $1 AND id = $2",
                vec![id(place.tenant), id(session)],
            ),
            (enqueue, vec![id(job), now.into()]),
            (claim, vec![now.into(), id(Uuid::new_v4())]),
            ("DELETE FROM job WHERE id = $1", vec![id(job)]),
            (bury, vec![id(place.tenant), id(session), now.into()]),
        ] {
            let begun = Instant::now();
            db.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await.unwrap();
            longest = longest.max(begun.elapsed());
        }
        rounds += 1;
    }
    (rounds, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_server_waits_for_a_migration() {
    let db = TestDb::postgres().await;
    run_first(&db.pool, Some(BEFORE)).await.unwrap();
    let place = Place::create(&db).await;
    let stop = Arc::new(AtomicBool::new(false));
    let servers: Vec<_> = {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(tokio::spawn(serve(db.another_pool().await, place, Arc::clone(&stop))));
        }
        servers
    };
    // Somebody reads for long, and the changes cannot have their lock.
    let reader = db.pool.begin().await.unwrap();
    reader.execute_unprepared("LOCK TABLE job, upload_tombstone IN ACCESS SHARE MODE").await.unwrap();
    let migrating = {
        let pool = db.another_pool().await;
        tokio::spawn(async move { run(&pool).await })
    };
    tokio::time::sleep(HELD).await;
    reader.commit().await.unwrap();
    migrating.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    for server in servers {
        let (rounds, longest) = server.await.unwrap();
        assert!(rounds > 0 && longest < BOUND, "{rounds} rounds, the longest statement took {longest:?}");
    }
    assert_eq!(invalid(&db).await, Vec::<String>::new());
}

async fn invalid(db: &TestDb) -> Vec<String> {
    db.texts("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_was_interrupted_is_built_anew() {
    let db = TestDb::postgres().await;
    run_first(&db.pool, Some(BEFORE + 1)).await.unwrap();
    // An old transaction keeps the index from being finished, and its builder dies.
    let old = db.pool.begin().await.unwrap();
    old.execute_unprepared("LOCK TABLE job IN ROW EXCLUSIVE MODE").await.unwrap();
    let builder = db.one_connection().await;
    builder.execute_unprepared("SET statement_timeout = '1s'").await.unwrap();
    let build = "CREATE INDEX CONCURRENTLY job_queued ON job (kind) WHERE queued";
    builder.execute_unprepared(build).await.unwrap_err();
    old.commit().await.unwrap();
    assert_eq!(invalid(&db).await, ["job_queued"]);

    run(&db.pool).await.unwrap();
    assert_eq!(invalid(&db).await, Vec::<String>::new());
    let columns = db.texts("SELECT indexdef FROM pg_indexes WHERE indexname = 'job_queued'").await;
    assert!(columns[0].contains("(kind, tenant_id, priority, run_at, id)"), "{columns:?}");
}

/// A second migrator waits for the first, and its waiting does not keep the first from building an index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_the_migrators_lock_is_in_nobodys_way() {
    let db = TestDb::postgres().await;
    run_first(&db.pool, Some(BEFORE)).await.unwrap();
    let place = Place::create(&db).await;
    place.stored(&db, Kind::Direct, "UPLOADING").await;
    let both = async {
        let (one, other) = (db.another_pool().await, db.another_pool().await);
        tokio::join!(run(&one), run(&other))
    };
    let (one, other) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("none waits for the other");
    one.unwrap();
    other.unwrap();
}

/// On one thread, whose log it reads.
#[tokio::test]
async fn whoever_waits_for_the_migrators_lock_says_so() {
    let db = TestDb::postgres().await;
    run_first(&db.pool, Some(BEFORE)).await.unwrap();
    let holder = db.one_connection().await;
    let lock = i64::from_be_bytes(*b"quaymast");
    holder.execute_unprepared(&format!("SELECT pg_advisory_lock({lock})")).await.unwrap();

    let log = tempfile::NamedTempFile::new().unwrap();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(log.reopen().unwrap())).finish();
    let listening = tracing::subscriber::set_default(lines);
    let waits = tokio::time::timeout(Duration::from_secs(3), run(&db.pool)).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(listening);
    let log = std::fs::read_to_string(log.path()).unwrap();
    let said = log.lines().filter(|line| line.contains("another process migrates")).count();
    assert_eq!(said, 1, "{log}");

    holder.execute_unprepared(&format!("SELECT pg_advisory_unlock({lock})")).await.unwrap();
    run(&db.pool).await.unwrap();
}
