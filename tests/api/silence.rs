//! Somebody is connected and says nothing: the database, the store, or another replica that is frozen with a lock in its
//! hand. Others are well again soon, and nothing is lost for good.

use std::pin::pin;
use std::time::{Duration, Instant};

use entity::TenantId;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use quaymaster::database::{Database, Tx};
use reqwest::Method;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::{Value, json};

use crate::events::open_soon;
use crate::kit::{Actor, Fault, MIB, Op, Pair, Reply, TestApp, Upload, stories, tell};

stories![a_store_that_falls_silent_is_found_again, what_is_dropped_in_the_middle_leaves_nothing_behind];

/// The default, which is longer than a connection has for the answer to a ping.
const PATIENT: (&str, &str) = ("QUAYMASTER_DATABASE__ACQUIRE_TIMEOUT_SECS", "5");
/// What the product promises, from the end of the silence on.
const WELL_WITHIN: Duration = Duration::from_secs(20);

mod a_database_that_falls_silent_is_found_again {
    #[test]
    fn postgres() {
        super::tell(super::Pair::Postgres, super::database_falls_silent);
    }
}

mod idle_connections_that_fell_silent_cost_a_moment {
    #[test]
    fn postgres() {
        super::tell(super::Pair::Postgres, super::idle_connections_fall_silent);
    }
}

mod batches_do_not_wait_for_it_file_by_file {
    #[test]
    fn postgres() {
        super::tell(super::Pair::Postgres, super::batches_meet_silence);
    }
}

mod a_line_to_the_others_that_cannot_be_had_again_delays_no_event {
    #[test]
    fn postgres() {
        super::tell(super::Pair::Postgres, super::line_is_not_had_again);
    }
}

mod a_replica_that_freezes_with_locks_in_its_hand_loses_them {
    #[test]
    fn postgres() {
        super::tell(super::Pair::Postgres, super::replica_freezes);
    }
}

mod a_transaction_that_lies_idle_is_an_outage {
    #[test]
    fn postgres() {
        super::tell(super::Pair::Postgres, super::transaction_lies_idle);
    }
}

async fn initiate(ann: &Actor, reference: usize) -> Reply {
    let body = json!({
        "file_name": "note.txt", "file_size": 10, "batch_reference": "b", "client_reference": reference.to_string(),
    });
    ann.initiate_with(&body).await
}

/// Asks until it is answered as it should be, and returns how long that took.
async fn well_again(ann: &Actor, reference: usize) -> Duration {
    let begun = Instant::now();
    loop {
        let answer = initiate(ann, reference).await;
        if answer.status < 300 {
            return begun.elapsed();
        }
        answer.is_problem(503, "database-unavailable");
        assert!(begun.elapsed() < WELL_WITHIN, "not well after {:?}: {answer}", begun.elapsed());
    }
}

/// More at once than there are connections of any kind: none is missing.
async fn all_are_well(ann: &Actor, from: usize) {
    for answer in join_all((from..from + 40).map(|reference| initiate(ann, reference))).await {
        answer.created();
    }
    for answer in join_all((0..20).map(|_| ann.list("status=UPLOADING"))).await {
        answer.ok();
    }
    // Those that are opened at once have one statement for many: these have several each.
    let reel = json!({"file_name": "reel.mov", "file_size": 20 << 20});
    let opened = join_all((0..20).map(|_| ann.initiate_with(&reel))).await;
    let found = opened.into_iter().map(async |answer| {
        let session = answer.created();
        ann.get(&format!("/app/uploads/{}", session["upload_session_id"].as_str().unwrap())).await.ok();
    });
    join_all(found).await;
}

async fn database_falls_silent(app: TestApp) {
    app.restart_with(&[PATIENT, ("QUAYMASTER_DATABASE__STATEMENT_TIMEOUT_SECS", "3")]).await;
    let ann = app.tenant("acme").user("ann");
    all_are_well(&ann, 0).await;
    // In the middle of as many requests as there are connections, at whatever they are just then.
    for round in 0..3 {
        let from = 1_000 * (round + 1);
        let load = async {
            let answers = join_all((from..from + 300).map(|reference| initiate(&ann, reference))).await;
            let told = answers.iter().filter(|answer| answer.status < 300).count();
            for refused in answers.iter().filter(|answer| answer.status >= 300) {
                refused.is_problem(503, "database-unavailable");
            }
            told
        };
        let silence = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            app.database.silence();
        };
        let (told, ()) = tokio::join!(load, silence);
        app.database.heal().await;
        well_again(&ann, from + 500).await;
        all_are_well(&ann, from + 600).await;
        // What was answered well is there; what was refused may be asked again.
        for answer in join_all((from..from + 300).map(|reference| initiate(&ann, reference))).await {
            assert!(answer.status < 300, "{answer}");
        }
        assert!(told < 300, "nobody met the silence");
    }
}

async fn idle_connections_fall_silent(app: TestApp) {
    app.restart_with(&[PATIENT]).await;
    let ann = app.tenant("acme").user("ann");
    all_are_well(&ann, 0).await;
    app.database.silence();
    // Long enough for a connection to be tested before its use.
    tokio::time::sleep(Duration::from_millis(600)).await;
    app.database.heal().await;
    // With the longest limit for statements that there is by default: nobody waits for that.
    let taken = well_again(&ann, 100).await;
    assert!(taken < Duration::from_secs(12), "{taken:?}");
    all_are_well(&ann, 200).await;
}

async fn batches_meet_silence(app: TestApp) {
    const FILES: usize = 600;
    app.restart_with(&[PATIENT, ("QUAYMASTER_DATABASE__STATEMENT_TIMEOUT_SECS", "3")]).await;
    let ann = app.tenant("acme").user("ann");
    let batch = |name: &str| {
        let file = |n: usize| json!({"file_name": "a", "file_size": 1, "client_reference": n.to_string()});
        json!({"batch_reference": name, "files": (0..FILES).map(file).collect::<Vec<_>>()})
    };
    let opened = ann.initiate_batch(&batch("before")).await.created();
    let ids = opened["uploads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!({"upload_session_id": one["upload"]["upload_session_id"]}));
    let completions = json!({"uploads": ids.collect::<Vec<_>>()});
    let after = batch("after");
    app.database.silence();
    let begun = Instant::now();
    let (opening, completing) =
        tokio::join!(ann.initiate_batch(&after), ann.post("/app/assets/upload/complete-batch", &completions));
    // A few attempts that each wait as long as one may, and no more.
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    app.database.heal().await;
    for answer in [opening, completing] {
        let told = answer.json();
        let told = told["uploads"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(told.len(), FILES);
        assert!(told.iter().all(|one| one["problem"]["code"] == "database-unavailable"), "{answer}");
    }
    well_again(&ann, 0).await;
    ann.initiate_batch(&after).await.created();
}

async fn line_is_not_had_again(app: TestApp) {
    app.restart_with(&[PATIENT]).await;
    let ann = app.tenant("acme").user("ann");
    all_are_well(&ann, 0).await;
    let mut reader = open_soon(&ann, None).await;
    ann.initiate("before.txt", 1).await;
    reader.take(2).await;

    // No new connection is to be had, and those that are there are well, but for the one that listens to other processes.
    app.database.silence_new();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let ended = app.database.rows.query_all_raw(Statement::from_string(DbBackend::Postgres, end)).await.unwrap();
    assert_eq!(ended.len(), 1, "the line is found");
    // Longer than it takes to try for a new one and to begin again.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        let made = Instant::now();
        ann.initiate("meanwhile.txt", 1).await;
        reader.take(2).await;
        assert!(made.elapsed() < Duration::from_secs(3), "told after {:?}", made.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    app.database.heal().await;
}

async fn replica_freezes(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut reader = open_soon(&ann, None).await;
    ann.initiate("before.txt", 1).await;
    reader.take(2).await;

    // What a frozen process has in its hand is locked by a connection on which nothing more comes.
    let frozen = app.another_engine().await;
    let held = [
        "UPDATE feed SET last_position = last_position",
        "UPDATE tenant_usage SET bytes = bytes",
        "UPDATE operator_chain SET last_seq = last_seq",
        // Of this, whoever opens a session has to take a share.
        "SELECT 1 FROM tenant FOR UPDATE",
    ];
    let mut locks = Vec::new();
    for sql in held {
        // Each in another name: nobody has all connections that write.
        let tx = frozen.db.begin_for(TenantId::new()).await.unwrap();
        tx.conn().execute_unprepared(sql).await.unwrap();
        locks.push(tx);
    }
    let begun = Instant::now();
    let answers = join_all((0..20).map(|reference| initiate(&ann, reference))).await;
    let mut refused = 0;
    for answer in answers {
        match answer.status {
            503 => refused += 1,
            _ => drop(answer.created()),
        }
    }
    well_again(&ann, 100).await;
    assert!(begun.elapsed() < WELL_WITHIN, "{:?}", begun.elapsed());
    // Two events of each session that was opened.
    reader.take(2 * (20 - refused + 1)).await;
    assert!(begun.elapsed() < WELL_WITHIN, "{:?}", begun.elapsed());

    // Woken up, it has lost them all, and is told so as of any outage.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for tx in locks {
        let error = tx.commit().await.unwrap_err();
        assert!(error.is_outage(), "{error:?}");
    }
    frozen.db.close().await.unwrap();
}

async fn transaction_lies_idle(app: TestApp) {
    let engine = app.another_engine().await;
    let (tx, snapshot) = (engine.db.begin().await.unwrap(), engine.db.snapshot().await.unwrap());
    let read = async |conn: &quaymaster::database::InTransaction| conn.execute_unprepared("SELECT 1").await;
    read(tx.conn()).await.unwrap();
    read(snapshot.conn()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let error = quaymaster::database::db_error(read(tx.conn()).await.unwrap_err());
    assert!(error.is_outage(), "{error:?}");
    // An audit takes its time, and nobody waits for it.
    read(snapshot.conn()).await.unwrap();
    drop((tx, snapshot));
    engine.db.close().await.unwrap();
}

async fn a_store_that_falls_silent_is_found_again(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    app.store.faults().order_all(Fault::Hang);
    for answer in join_all((0..20).map(|key| {
        let (ann, body) = (ann.clone(), body.clone());
        async move { ann.initiate_with_key(&format!("key-{key}"), &body).await }
    }))
    .await
    {
        answer.is_problem(503, "storage-unavailable");
    }
    // Those who need nothing of the store do not notice, and a connection of it that is silent stays so.
    for answer in join_all((0..20).map(|reference| initiate(&ann, reference))).await {
        answer.created();
    }
    app.store.heal();
    let begun = Instant::now();
    for key in 0..20 {
        let reel = Upload::without_bytes(ann.initiate_with_key(&format!("key-{key}"), &body).await.ok());
        ann.cancel(&reel).await.ok();
    }
    assert!(begun.elapsed() < WELL_WITHIN, "{:?}", begun.elapsed());
    assert!(app.store.faults().calls(Op::CreateMultipartUpload) >= 40);
}

/// What reads by a connection of its own see.
async fn slugs(app: &TestApp) -> Vec<String> {
    let sql = "SELECT slug FROM tenant WHERE slug LIKE 'cut-%' ORDER BY slug";
    let rows = &app.database.rows;
    let rows = rows.query_all_raw(Statement::from_string(rows.get_database_backend(), sql)).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

fn insert(backend: DbBackend, slug: &str) -> Statement {
    let sql = "INSERT INTO tenant (id, slug, created_at) VALUES ($1, $2, $3)";
    let values = [uuid::Uuid::now_v7().into(), slug.into(), chrono::Utc::now().into()];
    Statement::from_sql_and_values(backend, sql, values)
}

/// Polls a future so often, a moment apart, and drops it.
async fn dropped_after(polls: usize, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if future.as_mut().now_or_never().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One transaction with one row, and what was answered to it.
async fn transaction(db: &Database, slug: &str, done: &mut bool) {
    let tx: Tx = db.begin().await.unwrap();
    tx.conn().execute_raw(insert(tx.conn().get_database_backend(), slug)).await.unwrap();
    tx.commit().await.unwrap();
    *done = true;
}

async fn what_is_dropped_in_the_middle_leaves_nothing_behind(app: TestApp) {
    // One connection that writes: whatever was left on it meets whoever comes next.
    app.set("QUAYMASTER_DATABASE__MAX_CONNECTIONS", "3");
    let engine = app.another_engine().await;
    let backend = engine.db.write_conn().get_database_backend();
    let mut expected = Vec::new();
    for polls in 0..24 {
        let (cut, after) = (format!("cut-{polls:02}-a"), format!("cut-{polls:02}-b"));
        // The connection is warm: the first poll sends something.
        engine.db.write_conn().execute_unprepared("SELECT 1").await.unwrap();
        let mut done = false;
        dropped_after(polls, transaction(&engine.db, &cut, &mut done)).await;
        // Somebody else's single statement, which is a transaction by itself, and is answered well.
        engine.db.write_conn().execute_raw(insert(backend, &after)).await.unwrap();
        if done {
            expected.push(cut.clone());
        }
        expected.push(after);
        // What was dropped in the middle of its commit is there or is not.
        let seen = slugs(&app).await;
        let lost: Vec<_> = expected.iter().filter(|slug| !seen.contains(slug)).collect();
        assert!(lost.is_empty(), "after {polls} polls {lost:?} are lost");
    }
    engine.db.close().await.unwrap();
    app.database.rows.execute_unprepared("DELETE FROM tenant WHERE slug LIKE 'cut-%'").await.unwrap();
    let ready = app.send(Method::GET, "/readyz", |request| request).await.ok();
    assert_eq!(ready["database"], Value::from("ok"));
}
