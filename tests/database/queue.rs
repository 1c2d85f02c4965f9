//! The queue of jobs when it is long: what a look for work reads, and whose jobs get the free places.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use entity::{JobKind, Pass};
use entity::{TenantId, job};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quaymaster::engine::Engine;
use quaymaster::error::Result;
use quaymaster::jobs::rows::{any_due, claimable, find_shares, find_waiting};
use quaymaster::jobs::{self, Ending, Lease, NewJob};
use quaymaster::{asset, session};
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, QueryTrait};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::kit::TestDb;
use crate::kit::lives::World;
use crate::plans::Probe;

on_both!(
    a_look_reads_no_more_however_many_wait,
    a_tenant_with_many_jobs_keeps_no_other_waiting,
    what_was_claimed_before_a_failure_is_done,
    places_are_shared_with_what_other_processes_run,
    copies_by_parts_have_places_of_their_own,
    what_was_postponed_comes_back_in_its_turn,
    a_job_claimed_by_a_server_of_before_is_left_to_it,
    many_promotions_that_wait_are_not_looked_at_again_and_again,
);

const POSTPONED: u32 = 200_000;
const RUNNING: u32 = 20;
const TENANTS: u32 = 50;

fn tenant(number: u32) -> TenantId {
    TenantId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)))
}

fn job(engine: &Engine, of: Option<TenantId>, number: i64) -> NewJob {
    NewJob {
        kind: JobKind::Promote,
        tenant: of,
        payload: json!({ "number": number }),
        priority: 0,
        dedupe_key: None,
        run_at: engine.clock.now(),
    }
}

async fn put(engine: &Engine, jobs: impl IntoIterator<Item = NewJob>) {
    let tx = engine.db.begin().await.unwrap();
    for job in jobs {
        jobs::enqueue(engine, &tx, &job).await.unwrap().unwrap();
    }
    tx.commit().await.unwrap();
}

/// Jobs as a long outage leaves them: put off, running, dead; and a backlog of the last tenant.
async fn fill(db: &TestDb, engine: &Engine) {
    let is_postgres = db.backend() == DbBackend::Postgres;
    let (yes, no) = if is_postgres { ("true", "false") } else { ("1", "0") };
    let id = |from: &str| {
        if is_postgres {
            format!("lpad(to_hex({from}), 32, '0')::uuid")
        } else {
            format!("CAST(printf('%016d', {from}) AS blob)")
        }
    };
    let (now, later) = (engine.clock.now().to_rfc3339(), (engine.clock.now() + TimeDelta::hours(1)).to_rfc3339());
    let series = |first: u32, count: u32| {
        format!(
            "(WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s) AS s",
            first + count - 1
        )
    };
    let whose = format!("{} ", id(&format!("n % {TENANTS}")));
    let insert = |first, count, run_at: &str, queued: &str, lease: &str, dead: &str| {
        format!(
            "INSERT INTO job (id, kind, tenant_id, payload, priority, dedupe_key, attempts, max_attempts, run_at, queued,
                lease_token, last_error, dead_at, created_at, updated_at)
             SELECT {}, 'promote', {whose}, '{{}}', 0, 'key/' || n, 1, 10, '{run_at}', {queued}, {lease}, 'error', {dead},
                '{now}', '{now}' FROM {}",
            id("n"),
            series(first, count),
        )
    };
    let dead = format!("'{now}'");
    let dead = if is_postgres { format!("{dead}::timestamptz") } else { dead };
    for sql in [
        insert(1, POSTPONED, &later, no, "NULL", "NULL"),
        insert(POSTPONED + 1, RUNNING, &later, no, &id("n"), "NULL"),
        insert(POSTPONED + 1_001, 5_000, &now, no, "NULL", &dead),
        insert(POSTPONED + 10_001, 20_000, &now, yes, "NULL", "NULL"),
    ] {
        db.pool.execute_unprepared(&sql).await.unwrap();
    }
}

async fn a_look_reads_no_more_however_many_wait(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    fill(&db, &engine).await;
    if db.backend() == DbBackend::Postgres {
        db.pool.execute_unprepared("VACUUM ANALYZE job").await.unwrap();
    }
    let (backend, now) = (db.backend(), engine.clock.now());
    let probe = Probe::new(&db).await;
    let some = jobs::list(&engine, jobs::Filter::default(), None, 1).await.unwrap().items[0].tenant_id;
    // The backlog's tenants are few: each is one look at an index for its jobs and one for its places.
    let all = 10 * u64::from(TENANTS) + u64::from(RUNNING);
    for (what, query, most) in [
        ("whether any is due", any_due(now).build(backend), 20),
        ("the kinds of which any wait", find_waiting(backend, &JobKind::ALL, now), 60),
        ("whose jobs wait", find_shares(backend, JobKind::Promote, now, &[], None), all),
        ("of a kind that has none", find_shares(backend, JobKind::Pass(Pass::Cleanup), now, &[], None), 20),
        ("the first of a tenant", backend.build(&claimable(JobKind::Promote, some, now, &[], 4)), 30),
    ] {
        let costs = [probe.cost(&query).await, probe.cost_planned_once(&query).await];
        for cost in costs {
            assert!(cost.read <= most, "{what}: read {} of at most {most}\n{}", cost.read, cost.plan);
        }
    }
}

/// Leaves with the job's number the order in which the jobs were done.
fn note<'a>(engine: &'a Engine, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async move {
        let number = lease.job.payload["number"].as_i64().unwrap();
        let sql = format!("INSERT INTO effect (number) VALUES ({number})");
        engine.db.write_conn().execute_unprepared(&sql).await.unwrap();
        Ok(Ending::Done)
    }
    .boxed()
}

/// Never ends by itself.
fn endless<'a>(_: &'a Engine, _: &'a Lease, stop: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async {
        stop.cancelled().await;
        Ok(Ending::HandedOver)
    }
    .boxed()
}

async fn world(db: TestDb) -> TestDb {
    let db = db.migrated().await;
    db.execute("CREATE TABLE effect (number bigint NOT NULL)", []).await.unwrap();
    db
}

async fn done(db: &TestDb) -> Vec<i64> {
    let order = if db.backend() == DbBackend::Sqlite { "rowid" } else { "ctid" };
    let texts = db.texts(&format!("SELECT CAST(number AS text) FROM effect ORDER BY {order}")).await;
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

async fn a_tenant_with_many_jobs_keeps_no_other_waiting(db: TestDb) {
    let db = world(db).await;
    let engine = db.engine().await;
    put(&engine, (0..200).map(|number| job(&engine, Some(tenant(1)), number))).await;
    put(&engine, (1_000..1_003).map(|number| job(&engine, Some(tenant(2)), number))).await;
    put(&engine, [job(&engine, None, 2_000)]).await;
    jobs::work_off(&engine, note).await.unwrap();
    let done = done(&db).await;
    assert_eq!(done.len(), 204);
    // They came last, and are through after a few.
    let last = done.iter().rposition(|number| *number >= 1_000).unwrap();
    assert!(last < 16, "{:?}", &done[..20]);
}

async fn what_was_claimed_before_a_failure_is_done(db: TestDb) {
    let db = world(db).await;
    let engine = db.engine().await;
    put(&engine, (1..3).map(|number| job(&engine, Some(tenant(1)), number))).await;
    put(&engine, [NewJob { priority: 9, ..job(&engine, Some(tenant(1)), 3) }]).await;
    put(&engine, [job(&engine, Some(tenant(2)), 4)]).await;
    // Four places are two for each tenant. One of them is left, and whoever claims the last job for it fails.
    let refusals: &[&str] = match db.backend() {
        DbBackend::Postgres => &[
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'of the test'; END $$",
            "CREATE TRIGGER refuse BEFORE UPDATE ON job FOR EACH ROW WHEN (NEW.priority = 9) EXECUTE FUNCTION refuse()",
        ],
        _ => &["CREATE TRIGGER refuse BEFORE UPDATE ON job WHEN NEW.priority = 9
            BEGIN SELECT RAISE(ABORT, 'of the test'); END"],
    };
    for sql in refusals {
        db.pool.execute_unprepared(sql).await.unwrap();
    }
    let workers = jobs::start(&engine, note);
    until("the others are done", async || {
        let mut done = done(&db).await;
        done.sort_unstable();
        done == [1, 2, 4]
    })
    .await;
    workers.stop(Duration::from_secs(20)).await;
}

async fn running(engine: &Engine) -> BTreeMap<TenantId, usize> {
    let mut running = BTreeMap::new();
    for job in job::Entity::find().all(engine.db.conn()).await.unwrap() {
        *running.entry(job.tenant_id).or_default() += usize::from(job.lease_token.is_some());
    }
    running
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn places_are_shared_with_what_other_processes_run(db: TestDb) {
    let db = world(db).await;
    let replicas = [db.engine().await, db.engine().await];
    put(&replicas[0], (0..20).map(|number| job(&replicas[0], Some(tenant(1)), number))).await;
    let first = jobs::start(&replicas[0], endless);
    until("four of the first tenant run", async || running(&replicas[0]).await[&tenant(1)] == 4).await;
    put(&replicas[1], (0..20).map(|number| job(&replicas[1], Some(tenant(2)), number))).await;
    let second = jobs::start(&replicas[1], endless);
    until("eight run", async || running(&replicas[1]).await.values().sum::<usize>() == 8).await;
    assert_eq!(running(&replicas[1]).await, BTreeMap::from([(tenant(1), 4), (tenant(2), 4)]));
    first.stop(Duration::from_secs(20)).await;
    second.stop(Duration::from_secs(20)).await;
}

fn large_ones_take_for_ever<'a>(
    engine: &'a Engine,
    lease: &'a Lease,
    stop: &'a CancellationToken,
) -> BoxFuture<'a, Result<Ending>> {
    if lease.job.kind == JobKind::PromoteByParts.name() {
        endless(engine, lease, stop)
    } else {
        note(engine, lease, stop)
    }
}

async fn copies_by_parts_have_places_of_their_own(db: TestDb) {
    let world = World::begin(db).await;
    let (db, engine) = (&world.db, &world.engine);
    db.execute("CREATE TABLE effect (number bigint NOT NULL)", []).await.unwrap();
    let small = world.uploading().await;
    let large = session::Session { file_size: 6 << 30, ..small.clone() };
    assert_eq!(asset::promotion(engine, &small).kind, JobKind::Promote);
    let large = asset::promotion(engine, &large);
    assert_eq!((large.kind, large.tenant), (JobKind::PromoteByParts, Some(small.tenant_id)));
    put(engine, (0..20).map(|_| NewJob { dedupe_key: None, ..large.clone() })).await;
    let workers = jobs::start(engine, large_ones_take_for_ever);
    until("four large ones run", async || running(engine).await[&small.tenant_id] == 4).await;
    put(engine, [job(engine, large.tenant, 7)]).await;
    until("the small one is done", async || done(db).await == [7]).await;
    workers.stop(Duration::from_secs(20)).await;
}

async fn what_was_postponed_comes_back_in_its_turn(db: TestDb) {
    let db = world(db).await;
    let engine = db.engine().await;
    let later = engine.clock.now() + TimeDelta::hours(1);
    put(&engine, (0..3).map(|number| NewJob { run_at: later, ..job(&engine, Some(tenant(1)), number) })).await;
    assert_eq!(jobs::work_off(&engine, note).await.unwrap(), 0, "none is due");
    engine.clock.advance(TimeDelta::hours(1));
    put(&engine, [job(&engine, Some(tenant(2)), 9)]).await;
    assert_eq!(jobs::work_off(&engine, note).await.unwrap(), 4);
    assert_eq!(done(&db).await.len(), 4);
}

/// A server of before sets neither the tenant nor whether the job is queued.
async fn a_job_claimed_by_a_server_of_before_is_left_to_it(db: TestDb) {
    let db = world(db).await;
    let engine = db.engine().await;
    put(&engine, [job(&engine, Some(tenant(1)), 1)]).await;
    let later = engine.clock.now() + TimeDelta::seconds(60);
    let claim = "UPDATE job SET lease_token = $1, run_at = $2, attempts = attempts + 1";
    db.execute(claim, [Uuid::new_v4().into(), later.into()]).await.unwrap();
    assert_eq!(jobs::work_off(&engine, note).await.unwrap(), 0, "it is being done");
    engine.clock.advance(TimeDelta::seconds(61));
    assert_eq!(jobs::work_off(&engine, note).await.unwrap(), 1);

    let insert = "INSERT INTO job (id, kind, payload, priority, attempts, max_attempts, run_at, created_at, updated_at)
        VALUES ($1, 'promote', $2, 0, 0, 10, $3, $3, $3)";
    let now = engine.clock.now();
    db.execute(insert, [Uuid::now_v7().into(), json!({ "number": 2 }).into(), now.into()]).await.unwrap();
    assert_eq!(jobs::work_off(&engine, note).await.unwrap(), 1);
    assert_eq!(done(&db).await, [1, 2]);
}

/// Runs of the pass that go on from each other look at each of them once.
async fn many_promotions_that_wait_are_not_looked_at_again_and_again(db: TestDb) {
    const MANY: usize = 12;
    let world = World::begin(db).await;
    let mut engine = world.engine.clone();
    let mut settings = (*engine.settings).clone();
    settings.lifecycle.batch_rows = 2;
    engine.settings = Arc::new(settings);
    let mut sessions = Vec::new();
    for _ in 0..MANY {
        sessions.push(world.completed().await);
    }
    // All have their jobs but two, of which one was given up.
    put(&engine, sessions[2..].iter().map(|session| asset::promotion(&engine, session))).await;
    let dead = asset::promotion(&engine, &sessions[1]);
    put(&engine, [dead]).await;
    let key = format!("promote/{}", sessions[1].id);
    let sql = "UPDATE job SET dead_at = $1, last_error = 'an outage' WHERE dedupe_key = $2";
    world.db.execute(sql, [engine.clock.now().into(), key.into()]).await.unwrap();
    engine.clock.advance(TimeDelta::hours(1));

    let run = quaymaster::pass::Run::new(
        Default::default(),
        quaymaster::caller::Actor::System,
        Duration::from_secs(600),
        Default::default(),
    );
    let report = session::reconcile(&engine, &run).await.unwrap();
    assert_eq!((report.found, report.done), (2, 2), "{report:?}");
    let jobs = job::Entity::find().all(engine.db.conn()).await.unwrap();
    assert!(jobs.len() == MANY && jobs.iter().all(|job| job.dead_at.is_none()), "{jobs:?}");
    let report = session::reconcile(&engine, &run).await.unwrap();
    assert_eq!((report.found, report.done), (0, 0), "{report:?}");
}
