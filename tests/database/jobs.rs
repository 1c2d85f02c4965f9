//! The queue: who gets a job, who loses it, and what is true after processes have died over it.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::{JobId, job};
use entity::{JobKind, Pass};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use quaymaster::engine::Engine;
use quaymaster::error::{Error, Result};
use quaymaster::jobs::{self, Ending, Filter, Lease, NewJob, State};
use sea_orm::{ConnectionTrait, EntityTrait, Statement};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::kit::TestDb;
use crate::kit::lives::operator;

on_both!(
    a_job_is_done_once_by_one_of_two_pools,
    a_failure_takes_the_effect_back_and_waits,
    a_job_that_fails_too_often_is_dead_until_it_is_retried,
    a_job_whose_workers_vanish_is_dead_in_the_end,
    who_lost_the_lease_commits_nothing,
    a_lease_that_is_kept_is_not_lost,
    a_lost_lease_stops_the_work,
    of_two_jobs_with_one_key_one_is_taken,
    a_job_begun_here_is_finished_elsewhere_if_we_die,
    the_queue_is_in_order,
    a_new_job_wakes_the_worker,
    stopping_releases_what_does_not_end,
    an_operator_sees_retries_and_drops,
);

/// A job that leaves its number behind.
fn numbered(engine: &Engine, number: i64) -> NewJob {
    NewJob {
        kind: JobKind::Promote,
        tenant: None,
        payload: json!({ "number": number }),
        priority: 0,
        dedupe_key: None,
        run_at: engine.clock.now(),
    }
}

async fn put(engine: &Engine, job: &NewJob) -> Option<JobId> {
    let tx = engine.db.begin().await.unwrap();
    let id = jobs::enqueue(engine, &tx, job).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn prepare(db: TestDb) -> TestDb {
    let db = db.migrated().await;
    // No key: an effect that comes twice is there to be seen.
    db.execute("CREATE TABLE effect (number bigint NOT NULL, attempt integer NOT NULL)", []).await.unwrap();
    db
}

/// Writes the job's number down and settles, in one transaction.
async fn write_down(engine: &Engine, lease: &Lease) -> Result<()> {
    write_down_slowly(engine, lease, Duration::ZERO).await
}

async fn write_down_slowly(engine: &Engine, lease: &Lease, between: Duration) -> Result<()> {
    let tx = engine.db.begin().await?;
    let number = lease.job.payload["number"].as_i64().unwrap();
    let sql = "INSERT INTO effect (number, attempt) VALUES ($1, $2)";
    let insert = Statement::from_sql_and_values(
        tx.conn().get_database_backend(),
        sql,
        [number.into(), lease.job.attempts.into()],
    );
    tx.conn().execute_raw(insert).await.map_err(quaymaster::database::db_error)?;
    tokio::time::sleep(between).await;
    lease.settle(&tx).await?;
    tx.commit().await
}

fn effect<'a>(engine: &'a Engine, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async move { write_down(engine, lease).await.map(|()| Ending::Done) }.boxed()
}

fn failing<'a>(engine: &'a Engine, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async move {
        let tx = engine.db.begin().await?;
        lease.settle(&tx).await?;
        drop(tx);
        Err(Error::BadJob("it did not work ".repeat(1_000)))
    }
    .boxed()
}

fn panicking<'a>(_: &'a Engine, _: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async { panic!("of the test") }.boxed()
}

/// Until it is stopped, and for ever where nobody does.
fn endless<'a>(_: &'a Engine, _: &'a Lease, stop: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async {
        stop.cancelled().await;
        Ok(Ending::HandedOver)
    }
    .boxed()
}

fn deaf<'a>(_: &'a Engine, _: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    std::future::pending().boxed()
}

async fn effects(db: &TestDb) -> Vec<i64> {
    let texts = db.texts("SELECT CAST(number AS text) FROM effect").await;
    let mut numbers: Vec<i64> = texts.iter().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

async fn all(engine: &Engine) -> Vec<job::Model> {
    job::Entity::find().all(engine.db.conn()).await.unwrap()
}

async fn the_one(engine: &Engine) -> job::Model {
    let mut jobs = all(engine).await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_job_is_done_once_by_one_of_two_pools(db: TestDb) {
    let db = prepare(db).await;
    let engines = [db.engine().await, db.engine().await];
    let tx = engines[0].db.begin().await.unwrap();
    for number in 0..200 {
        jobs::enqueue(&engines[0], &tx, &numbered(&engines[0], number)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let counts = join_all(engines.iter().map(|engine| jobs::work_off(engine, effect))).await;
    let counts: Vec<u64> = counts.into_iter().map(Result::unwrap).collect();
    assert_eq!(counts.iter().sum::<u64>(), 200, "{counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "both have their share: {counts:?}");
    assert_eq!(effects(&db).await, (0..200).collect::<Vec<_>>());
    assert!(all(&engines[0]).await.is_empty());
}

async fn a_failure_takes_the_effect_back_and_waits(db: TestDb) {
    let db = prepare(db).await;
    let engine = db.engine().await;
    put(&engine, &numbered(&engine, 1)).await;
    assert_eq!(jobs::work_off(&engine, failing).await.unwrap(), 1);
    let job = the_one(&engine).await;
    assert_eq!((job.attempts, job.lease_token, job.dead_at), (1, None, None));
    let error = job.last_error.unwrap();
    assert!(error.starts_with("the job's payload cannot be read: it did not work") && error.len() == 1_000, "{error}");
    assert!(job.run_at > job.created_at && job.run_at <= engine.clock.now() + TimeDelta::seconds(5));
    engine.clock.advance(TimeDelta::seconds(5));
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 1);
    assert_eq!(effects(&db).await, [1]);
    assert!(all(&engine).await.is_empty());
}

async fn a_job_that_fails_too_often_is_dead_until_it_is_retried(db: TestDb) {
    let db = prepare(db).await;
    let engine = db.engine().await;
    let id = put(&engine, &numbered(&engine, 1)).await.unwrap();
    for attempt in 1..=10 {
        assert_eq!(jobs::work_off(&engine, if attempt == 10 { panicking } else { failing }).await.unwrap(), 1);
        engine.clock.advance(TimeDelta::hours(1));
    }
    let job = the_one(&engine).await;
    assert!(job.dead_at.is_some(), "{job:?}");
    assert_eq!(job.last_error.as_deref(), Some("the job panicked, which is a bug"));
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 0, "the dead are left alone");
    let retried = jobs::retry(&engine, &operator("ola"), id).await.unwrap();
    assert_eq!((retried.attempts, retried.dead_at), (0, None));
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 1);
    assert_eq!(effects(&db).await, [1]);
    assert!(matches!(jobs::retry(&engine, &operator("ola"), id).await, Err(Error::NotFound)));
}

async fn a_job_whose_workers_vanish_is_dead_in_the_end(db: TestDb) {
    let db = prepare(db).await;
    let engine = db.engine().await;
    put(&engine, &numbered(&engine, 1)).await;
    let mut rounds = 0;
    loop {
        let before = the_one(&engine).await;
        if before.dead_at.is_some() {
            break;
        }
        let is_claimed = async || (before.attempts + 1..=10).contains(&the_one(&engine).await.attempts);
        // It vanishes between its claim and its end: the future is dropped. Not so the worker that finds it dead. A round
        // without a claim finds the row still locked by the one before.
        tokio::select! {
            _ = jobs::work_off(&engine, deaf) => {}
            () = until("the claim", is_claimed) => {}
        }
        engine.clock.advance(TimeDelta::seconds(61));
        rounds += 1;
        assert!(rounds < 50, "{before:?}");
    }
    let job = the_one(&engine).await;
    assert_eq!(job.attempts, 11, "the eleventh claim finds ten attempts used up");
    assert_eq!(job.last_error.as_deref(), Some("every worker that started the job vanished"));
}

async fn begin(engine: &Engine, job: &NewJob) -> Option<Lease> {
    let tx = engine.db.begin().await.unwrap();
    let lease = jobs::begin(engine, &tx, job).await.unwrap();
    tx.commit().await.unwrap();
    lease
}

async fn claimed(engine: &Engine) -> Lease {
    let job = numbered(engine, 1);
    begin(engine, &job).await.unwrap()
}

async fn who_lost_the_lease_commits_nothing(db: TestDb) {
    let db = prepare(db).await;
    let engine = db.engine().await;
    let lost = claimed(&engine).await;
    engine.clock.advance(TimeDelta::seconds(59));
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 0, "the lease still holds");
    engine.clock.advance(TimeDelta::seconds(2));
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 1);
    assert!(matches!(write_down(&engine, &lost).await, Err(Error::LeaseLost)));
    assert_eq!(effects(&db).await, [1]);
}

/// An engine whose leases are as short as can be.
async fn impatient(db: &TestDb) -> Engine {
    let mut engine = db.engine().await;
    let mut settings = (*engine.settings).clone();
    settings.jobs.lease_secs = 3;
    settings.jobs.poll_millis = 3_600_000;
    engine.settings = std::sync::Arc::new(settings);
    engine
}

async fn a_lease_that_is_kept_is_not_lost(db: TestDb) {
    let db = prepare(db).await;
    let engine = impatient(&db).await;
    let lease = claimed(&engine).await;
    let stop = CancellationToken::new();
    lease
        .run_with_heartbeat(&engine, &stop, async |own| {
            let first = lease.job.run_at;
            until("a sign of life", async || the_one(&engine).await.run_at > first).await;
            assert!(!own.is_cancelled());
            write_down(&engine, &lease).await.unwrap();
        })
        .await;
    assert_eq!(effects(&db).await, [1]);
}

async fn a_lost_lease_stops_the_work(db: TestDb) {
    let db = prepare(db).await;
    let engine = impatient(&db).await;
    let lease = claimed(&engine).await;
    engine.clock.advance(TimeDelta::seconds(4));
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 1, "another worker has it");
    let stop = CancellationToken::new();
    // Ends because the heartbeat finds out.
    lease.run_with_heartbeat(&engine, &stop, async |own| own.cancelled().await).await;
    assert!(!stop.is_cancelled(), "only this job is stopped");
    assert!(matches!(write_down(&engine, &lease).await, Err(Error::LeaseLost)));
    assert_eq!(effects(&db).await, [1]);
}

async fn of_two_jobs_with_one_key_one_is_taken(db: TestDb) {
    let db = prepare(db).await;
    let engine = db.engine().await;
    let job = NewJob { dedupe_key: Some("key".to_owned()), ..numbered(&engine, 1) };
    let first = put(&engine, &job).await.unwrap();
    assert_eq!(put(&engine, &job).await, None);
    assert!(begin(&engine, &job).await.is_none());
    for _ in 0..10 {
        jobs::work_off(&engine, failing).await.unwrap();
        engine.clock.advance(TimeDelta::hours(1));
    }
    let second = put(&engine, &job).await.expect("a dead job is in nobody's way");
    assert!(
        matches!(jobs::retry(&engine, &operator("ola"), first).await, Err(Error::Busy(_))),
        "it would be there twice"
    );
    jobs::discard(&engine, &operator("ola"), second).await.unwrap();
    jobs::retry(&engine, &operator("ola"), first).await.unwrap();
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 1);
    assert!(begin(&engine, &job).await.is_some());
}

async fn a_job_begun_here_is_finished_elsewhere_if_we_die(db: TestDb) {
    let db = prepare(db).await;
    let engine = db.engine().await;
    drop(claimed(&engine).await);
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 0);
    engine.clock.advance(TimeDelta::seconds(61));
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 1);
    assert_eq!(effects(&db).await, [1]);
}

async fn the_queue_is_in_order(db: TestDb) {
    let db = prepare(db).await;
    let mut engine = db.engine().await;
    let mut settings = (*engine.settings).clone();
    settings.jobs.concurrency = 1;
    engine.settings = std::sync::Arc::new(settings);
    let now = engine.clock.now();
    for (number, priority, ago) in [(3, 0, 10), (1, -1, 0), (2, 0, 20), (4, 1, 99), (9, 0, -60)] {
        let run_at = now - TimeDelta::seconds(ago);
        put(&engine, &NewJob { priority, run_at, ..numbered(&engine, number) }).await;
    }
    assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 4, "one is not due");
    let order = match db.backend() {
        sea_orm::DbBackend::Sqlite => "rowid",
        _ => "ctid",
    };
    assert_eq!(
        db.texts(&format!("SELECT CAST(number AS text) FROM effect ORDER BY {order}")).await,
        ["1", "2", "3", "4"]
    );
}

async fn a_new_job_wakes_the_worker(db: TestDb) {
    let db = prepare(db).await;
    // It looks for work once an hour.
    let engine = impatient(&db).await;
    let workers = jobs::start(&engine, effect);
    for number in 1..=3 {
        put(&engine, &numbered(&engine, number)).await;
        until("the effect", async || effects(&db).await.len() == number as usize).await;
    }
    workers.stop(Duration::from_secs(5)).await;
    put(&engine, &numbered(&engine, 4)).await;
    assert_eq!(the_one(&engine).await.attempts, 0, "nobody works any more");
}

async fn stopping_releases_what_does_not_end(db: TestDb) {
    let db = prepare(db).await;
    let engine = impatient(&db).await;
    for (work, grace) in [(endless as jobs::Work, Duration::from_secs(20)), (deaf, Duration::from_millis(50))] {
        put(&engine, &numbered(&engine, 1)).await;
        let workers = jobs::start(&engine, work);
        until("the claim", async || the_one(&engine).await.lease_token.is_some()).await;
        let begun = Instant::now();
        workers.stop(grace).await;
        assert!(begun.elapsed() < Duration::from_secs(10));
        let job = the_one(&engine).await;
        assert_eq!((job.lease_token, job.attempts), (None, 0), "as if it had not been claimed");
        assert_eq!(jobs::work_off(&engine, effect).await.unwrap(), 1, "due at once");
    }
}

async fn an_operator_sees_retries_and_drops(db: TestDb) {
    let db = prepare(db).await;
    let engine = db.engine().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(put(&engine, &numbered(&engine, number)).await.unwrap());
    }
    let lease = claimed(&engine).await;
    let listed = async |filter, before, limit| {
        let page = jobs::list(&engine, filter, before, limit).await.unwrap();
        (page.items.iter().map(|job| job.id).collect::<Vec<_>>(), page.next)
    };
    let newest_first: Vec<JobId> = ids.iter().rev().copied().collect();
    let waiting = Filter { state: Some(State::Waiting), kind: Some(JobKind::Promote) };
    assert_eq!(listed(waiting, None, 10).await, (newest_first.clone(), None));
    assert_eq!(listed(waiting, None, 3).await, (newest_first[..3].to_vec(), Some(newest_first[2])));
    assert_eq!(listed(waiting, Some(newest_first[2]), 3).await, (newest_first[3..].to_vec(), None));
    let running = Filter { state: Some(State::Running), kind: None };
    assert_eq!(listed(running, None, 10).await.0, [lease.job.id]);
    assert_eq!(listed(Filter { kind: Some(JobKind::Pass(Pass::Cleanup)), state: None }, None, 10).await.0, []);
    assert!(matches!(jobs::discard(&engine, &operator("ola"), lease.job.id).await, Err(Error::Busy(_))));
    assert!(matches!(jobs::retry(&engine, &operator("ola"), lease.job.id).await, Err(Error::Busy(_))));
    jobs::discard(&engine, &operator("ola"), ids[0]).await.unwrap();
    assert!(matches!(jobs::discard(&engine, &operator("ola"), ids[0]).await, Err(Error::NotFound)));
    engine.clock.advance(TimeDelta::seconds(61));
    assert_eq!(listed(running, None, 10).await.0, [], "its worker has vanished");
    jobs::discard(&engine, &operator("ola"), lease.job.id).await.unwrap();
    for _ in 0..10 {
        jobs::work_off(&engine, failing).await.unwrap();
        engine.clock.advance(TimeDelta::hours(1));
    }
    let dead = Filter { state: Some(State::Dead), kind: None };
    assert_eq!(listed(dead, None, 10).await.0, newest_first[..4]);
    for job in all(&engine).await {
        assert_eq!(State::of(&job, engine.clock.now()), State::Dead);
    }
}

/// With time to be killed in, before, in and after its transaction.
fn slow_effect<'a>(engine: &'a Engine, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Ending>> {
    async move {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..20))).await;
        write_down_slowly(engine, lease, Duration::from_millis(fastrand::u64(..20))).await?;
        Ok(Ending::Done)
    }
    .boxed()
}

/// What the processes of the test below are told.
const WORKER_OF: &str = "QUAYMASTER_TEST_WORKER_OF";
const JOBS: i64 = 5_000;

/// Not a test: a worker process for the next one, in this very program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process that another test starts"]
async fn worker_process() {
    let Ok(url) = std::env::var(WORKER_OF) else { return };
    let engine = crate::kit::engine_on(&url).await;
    let _workers = jobs::start(&engine, slow_effect);
    // Until it is killed, or the test is gone, and with it the other end of this pipe.
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await.unwrap().unwrap();
}

fn start_process(url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["jobs::worker_process", "--exact", "--ignored", "--nocapture"])
        .env(WORKER_OF, url)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Four processes, each killed and started again and again, at any moment of a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_killed_lose_nothing_and_do_nothing_twice() {
    let db = prepare(TestDb::postgres().await).await;
    let engine = db.engine().await;
    let killing = Duration::from_secs(60);
    let killing_ends = Instant::now() + killing;
    let mut processes: Vec<Child> = (0..4).map(|_| start_process(db.url())).collect();
    let mut kills = 0;
    let mut put_in = 0;
    while put_in < JOBS || Instant::now() < killing_ends {
        // They trickle in, so that there is work to be killed in until the end.
        let left = killing_ends.saturating_duration_since(Instant::now());
        let share = 1.0 - left.div_duration_f64(killing);
        let wanted = ((JOBS as f64 * (share + 0.1)) as i64).min(JOBS);
        let tx = engine.db.begin().await.unwrap();
        while put_in < wanted {
            jobs::enqueue(&engine, &tx, &numbered(&engine, put_in)).await.unwrap();
            put_in += 1;
        }
        tx.commit().await.unwrap();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..300))).await;
        let victim = &mut processes[fastrand::usize(..4)];
        victim.kill().unwrap(); // SIGKILL
        victim.wait().unwrap();
        *victim = start_process(db.url());
        kills += 1;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while !all(&engine).await.is_empty() {
        assert!(Instant::now() < deadline, "stuck: {:?}", all(&engine).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for process in &mut processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let done = effects(&db).await;
    let distinct: BTreeSet<i64> = done.iter().copied().collect();
    assert_eq!(distinct.len(), done.len(), "some are there twice");
    assert!(distinct.into_iter().eq(0..JOBS), "some were lost");
    let again = db.texts("SELECT CAST(number AS text) FROM effect WHERE attempt > 1").await.len();
    #[allow(clippy::print_stderr, reason = "the figures of the run")]
    {
        eprintln!("{JOBS} jobs, each done once, over {kills} kills; {again} of them were begun more than once");
    }
    assert!(again > 0, "nothing was killed over its work: the test shows nothing");
}
