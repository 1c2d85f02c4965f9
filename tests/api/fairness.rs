//! One tenant makes as much noise as it can, and another one hardly notices: what is bounded for all has a share for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entity::TenantId;
use futures_util::future::join_all;
use quaymaster::database::Conn;
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::kit::{Actor, Pair, TestApp, stories, tell};

stories![
    many_batches_of_one_tenant_leave_another_its_turn,
    what_takes_long_to_understand_holds_up_nobody_else,
    sums_of_one_tenant_leave_others_their_connections,
    searches_keep_no_upload_waiting,
];

mod lists_go_on_while_a_tenant_counts {
    #[test]
    fn postgres() {
        super::tell(super::Pair::Postgres, super::counting);
    }
}

const BATCHES: usize = 200;
const FILES: usize = 8;

async fn batch(actor: &Actor, number: usize) {
    let files: Vec<Value> = (0..FILES)
        .map(|file| json!({"file_name": "still.jpg", "file_size": 10, "client_reference": format!("row-{file}")}))
        .collect();
    let body = json!({"batch_reference": format!("noise-{number}"), "files": files});
    let answer = actor.post("/app/uploads/initiate-batch", &body).await;
    // Whoever asks for so much may be told to come again, as long as it is they who are.
    assert!([201, 207, 429, 503].contains(&answer.status), "{answer}");
}

async fn sessions(app: &TestApp) -> u64 {
    entity::upload_session::Entity::find().count(&app.database.rows).await.unwrap()
}

async fn many_batches_of_one_tenant_leave_another_its_turn(app: TestApp) {
    let (noisy, quiet) = (app.tenant("acme").user("ann"), app.tenant("globex").user("bob"));
    quiet.initiate("warm.txt", 1).await;
    let over = Arc::new(AtomicUsize::new(0));
    let mut noise = JoinSet::new();
    for number in 0..BATCHES {
        let (noisy, over) = (noisy.clone(), Arc::clone(&over));
        noise.spawn(async move {
            batch(&noisy, number).await;
            over.fetch_add(1, Ordering::SeqCst);
        });
    }
    while sessions(&app).await < 50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Told in sessions of the other one's that come between, and not in time, of which a busy machine takes any.
    let mut between = Vec::new();
    for number in 0..3 {
        let before = sessions(&app).await;
        let body = json!({
            "file_name": "note.txt", "file_size": 1, "batch_reference": "b", "client_reference": number.to_string(),
        });
        quiet.initiate_with(&body).await.created();
        between.push(sessions(&app).await - before);
    }
    assert!(over.load(Ordering::SeqCst) < BATCHES, "the noise was over before: nothing was shown");
    let all = BATCHES * FILES;
    assert!(between.iter().all(|between| *between <= all as u64 / 4), "{between:?} of {all} came between");
    noise.join_all().await;
}

/// Refused, each for its thousand files, and each of these for a hundred fields.
const BAD_BATCHES: usize = 6;

async fn what_takes_long_to_understand_holds_up_nobody_else(app: TestApp) {
    // One thread for all connections: what keeps it busy keeps all waiting.
    app.restart_with(&[("QUAYMASTER_SERVER__WORKERS", "1")]).await;
    let (noisy, quiet) = (app.tenant("acme").user("ann"), app.tenant("globex").user("bob"));
    let note = quiet.initiate("note.txt", 1).await;
    let mut file: serde_json::Map<_, _> = (0..99).map(|n| (format!("unknown-{n}"), json!(n))).collect();
    file.insert("file_size".to_owned(), json!("x"));
    let body = Arc::new(json!({ "files": vec![Value::from(file); 1_000] }));
    let mut noise = JoinSet::new();
    for _ in 0..BAD_BATCHES {
        let (noisy, body) = (noisy.clone(), Arc::clone(&body));
        noise.spawn(async move { noisy.initiate_batch(&body).await });
    }
    // Told in answers, and not in time, of which a busy machine takes any.
    let (mut refused, mut understood, mut answered) = (0, 0, 0);
    while refused < BAD_BATCHES {
        tokio::select! {
            biased;
            Some(reply) = noise.join_next() => {
                // All of one tenant: those that have no turn in time are told to come again.
                let reply = reply.unwrap();
                match reply.status {
                    422 => understood += reply.is_problem(422, "validation-failed")["rejected"].as_u64().unwrap(),
                    _ => drop(reply.is_problem(429, "rate-limited")),
                }
                refused += 1;
            }
            _ = quiet.status(&note) => answered += 1,
        }
    }
    assert!(understood >= 1_000, "{understood} files were told what is wrong with them");
    assert!(answered >= 10 * BAD_BATCHES, "{answered} answers beside {BAD_BATCHES} bad batches");
}

/// For noise that waits for its turn to the end.
const PATIENT: (&str, &str) = ("QUAYMASTER_DATABASE__ACQUIRE_TIMEOUT_SECS", "60");

/// A statement that takes some seconds, on either database.
async fn slow(conn: &Conn) {
    let sql = match conn.get_database_backend() {
        DbBackend::Postgres => "SELECT pg_sleep(3)",
        _ => "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000) SELECT count(i) FROM n",
    };
    conn.execute_unprepared(sql).await.unwrap();
}

async fn quick(conn: &Conn) {
    conn.execute_unprepared("SELECT 1").await.unwrap();
}

/// So many of each at once, all of which take a while. Counts those that are through.
fn noise(count: usize, conn: &Conn, through: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut noise = JoinSet::new();
    for _ in 0..count {
        let (conn, through) = (conn.clone(), Arc::clone(through));
        noise.spawn(async move {
            slow(&conn).await;
            through.fetch_add(1, Ordering::SeqCst);
        });
    }
    noise
}

async fn sums_of_one_tenant_leave_others_their_connections(app: TestApp) {
    app.restart_with(&[PATIENT]).await;
    let engine = app.engine().await;
    let [noisy, quiet, other] = [(); 3].map(|()| TenantId::new());
    let through = Arc::default();
    // Of one tenant, one after the other: half of the connections that may count are a tenant's.
    let noise = noise(4, &engine.db.count_conn().of(noisy), &through);
    tokio::time::sleep(Duration::from_millis(100)).await;
    quick(&engine.db.count_conn().of(quiet)).await;
    for tenant in [noisy, quiet, other] {
        quick(&engine.db.search_conn().of(tenant)).await;
        quick(&engine.db.conn().of(tenant)).await;
    }
    assert!(through.load(Ordering::SeqCst) <= 1, "{} were through before", through.load(Ordering::SeqCst));
    noise.join_all().await;
}

async fn searches_keep_no_upload_waiting(app: TestApp) {
    app.restart_with(&[PATIENT]).await;
    let (engine, ann) = (app.engine().await, app.tenant("acme").user("ann"));
    ann.initiate("warm.txt", 1).await;
    let through = Arc::default();
    let mut all = Vec::new();
    // More tenants than there are connections, so that none is left.
    for _ in 0..4 {
        all.push(noise(2, &engine.db.search_conn().of(TenantId::new()), &through));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let body = json!({"file_name": "note.txt", "file_size": 1, "batch_reference": "b", "client_reference": "row"});
    let note = crate::kit::Upload::new(ann.initiate_with(&body).await.created());
    // By its references, too.
    ann.initiate_with(&body).await.ok();
    ann.session(&note).await.ok();
    assert!(through.load(Ordering::SeqCst) <= 3, "{} were through before", through.load(Ordering::SeqCst));
    join_all(all.into_iter().map(JoinSet::join_all)).await;
}

/// Over HTTP: what all sessions of a batch are counted for takes one connection, however often a tenant asks.
async fn counting(app: TestApp) {
    let (ann, bob) = (app.tenant("acme").user("ann"), app.tenant("globex").user("bob"));
    let body = json!({"file_name": "note.txt", "file_size": 1, "batch_reference": "b", "client_reference": "row"});
    ann.initiate_with(&body).await.created();
    bob.get("/app/brands").await.ok();
    // Whoever counts sessions waits here as long as if there were very many.
    let lock = app.database.one_connection().await;
    lock.execute_unprepared("BEGIN; LOCK TABLE asset, upload_session IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut asks = JoinSet::new();
    for _ in 0..20 {
        let ann = ann.clone();
        asks.spawn(async move { ann.batch("b").await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A search that reads other tables.
    let operator = app.operator("op");
    let tenants = tokio::time::timeout(Duration::from_millis(1_500), operator.get("/admin/tenants?limit=10"));
    tenants.await.expect("a connection is left for a search").ok();
    bob.get("/app/brands").await.ok();
    lock.execute_unprepared("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();
    while let Some(answer) = asks.join_next().await {
        let answer = answer.unwrap();
        // Those whose turn did not come in time, at the door or at the database, are told so.
        match answer.status {
            200 => {}
            429 => drop(answer.is_problem(429, "rate-limited")),
            _ => drop(answer.is_problem(503, "database-unavailable")),
        }
    }
    ann.batch("b").await.ok();
}
