//! Runs of the passes and the slots of the timetable, as several processes on one database see them.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{job, pass_run, upload_tombstone};
use futures_util::future::join_all;
use quaymaster::caller::Actor;
use quaymaster::engine::Engine;
use quaymaster::feed;
use quaymaster::jobs;
use quaymaster::pass::{self, Options, Pass, Run};
use quaymaster::schedule::{self, Taken};
use quaymaster::session;
use quaymaster::timetable::Timetable;
use quaymaster::work;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, PaginatorTrait, Set};
use tokio_util::sync::CancellationToken;

use crate::kit::TestDb;
use crate::kit::forger::{forge, forger};
use crate::kit::lives::{World, operator};

on_both!(
    of_many_replicas_one_takes_a_slot,
    missed_slots_are_one_run,
    a_slot_passes_while_the_pass_still_runs,
    a_run_by_hand_and_another_exclude_each_other,
    a_lost_run_is_ended_and_done_again,
    old_runs_go_and_the_last_thousand_stay,
    the_timetable_tells_how_it_stands,
    what_one_part_of_a_pass_meets_keeps_no_other_from_its_turn,
);

const HOURLY: &str = "0 * * * *";

async fn take(engine: &Engine, pass: Pass) -> Taken {
    schedule::take(engine, pass, &Timetable::parse(HOURLY).unwrap()).await.unwrap()
}

/// The beginning of the hour.
fn hour(engine: &Engine) -> DateTime<Utc> {
    Timetable::parse(HOURLY).unwrap().last(engine.clock.now()).unwrap()
}

async fn queue(engine: &Engine) -> Vec<job::Model> {
    job::Entity::find().all(engine.db.conn()).await.unwrap()
}

/// Replicas whose clocks agree.
async fn replicas(db: &TestDb, count: usize) -> Vec<Engine> {
    let first = db.engine().await;
    let mut all = vec![first.clone()];
    while all.len() < count {
        all.push(Engine { clock: first.clock.clone(), ..db.engine().await });
    }
    all
}

async fn of_many_replicas_one_takes_a_slot(db: TestDb) {
    let db = db.migrated().await;
    let replicas = replicas(&db, 4).await;
    let clock = replicas[0].clock.clone();
    for round in 0..12 {
        let taken = join_all(replicas.iter().flat_map(|replica| [replica; 3]).map(|e| take(e, Pass::Cleanup))).await;
        let queued = taken.iter().filter(|taken| matches!(taken, Taken::Queued(_))).count();
        let others = taken.iter().filter(|taken| **taken == Taken::NotTaken).count();
        // The first time there is nothing that could have been missed.
        assert_eq!((queued, others), if round == 0 { (0, 12) } else { (1, 11) }, "round {round}: {taken:?}");
        let jobs = queue(&replicas[0]).await;
        assert_eq!(jobs.len(), queued);
        for job in jobs {
            assert_eq!((job.kind.as_str(), &job.payload["actor"]), ("cleanup", &"system".into()));
            let slot: DateTime<Utc> = serde_json::from_value(job.payload["slot"].clone()).unwrap();
            assert_eq!(slot, hour(&replicas[0]));
            jobs::discard(&replicas[0], &operator("ola"), job.id).await.unwrap();
        }
        clock.advance(TimeDelta::hours(1));
    }
}

async fn missed_slots_are_one_run(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    assert_eq!(take(&engine, Pass::Orphans).await, Taken::NotTaken);
    engine.clock.advance(TimeDelta::days(9));
    assert_eq!(take(&engine, Pass::Orphans).await, Taken::Queued(hour(&engine)));
    assert_eq!(take(&engine, Pass::Orphans).await, Taken::NotTaken);
    assert_eq!(jobs::work_off(&engine, work::job).await.unwrap(), 1);
    let runs = pass::runs(&engine, Some(Pass::Orphans), 10).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].slot, runs[0].actor.as_str()), (Some(hour(&engine)), "system"));
    // A clock that goes back takes no slot again, as long as it may be just another replica's.
    let taken = hour(&engine);
    for minutes in [-5, -54] {
        engine.clock.advance(TimeDelta::minutes(minutes));
        assert_eq!(take(&engine, Pass::Orphans).await, Taken::NotTaken);
    }
    // By so much it was wrong before, and nobody waits until then.
    engine.clock.advance(TimeDelta::hours(-5));
    assert!(hour(&engine) < taken);
    assert_eq!(take(&engine, Pass::Orphans).await, Taken::Queued(hour(&engine)));
    assert_eq!(take(&engine, Pass::Orphans).await, Taken::NotTaken);
}

async fn a_slot_passes_while_the_pass_still_runs(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    take(&engine, Pass::Reconcile).await;
    pass::enqueue(&engine, Pass::Reconcile, Options::default(), &operator("ann")).await.unwrap().unwrap();
    engine.clock.advance(TimeDelta::hours(1));
    let slot = hour(&engine);
    assert_eq!(take(&engine, Pass::Reconcile).await, Taken::StillRunning(slot));
    assert_eq!(queue(&engine).await.len(), 1);
    assert_eq!(jobs::work_off(&engine, work::job).await.unwrap(), 1);
    assert_eq!(take(&engine, Pass::Reconcile).await, Taken::NotTaken, "it is not made up for");
    engine.clock.advance(TimeDelta::hours(1));
    assert!(matches!(take(&engine, Pass::Reconcile).await, Taken::Queued(_)));
}

async fn a_run_by_hand_and_another_exclude_each_other(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let options = Options { dry_run: true, older_than: Some(TimeDelta::zero()) };
    let stop = CancellationToken::new();
    let id = pass::enqueue(&engine, Pass::DetectAbandoned, options, &operator("ann")).await.unwrap().unwrap();
    assert_eq!(pass::enqueue(&engine, Pass::DetectAbandoned, options, &operator("bob")).await.unwrap(), None);
    assert!(
        pass::by_hand(&engine, work::pass, Pass::DetectAbandoned, options, &Actor::Command, &stop)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        pass::by_hand(&engine, work::pass, Pass::Reconcile, options, &Actor::Command, &stop).await.unwrap().is_some(),
        "that is another"
    );
    jobs::discard(&engine, &operator("ola"), id).await.unwrap();
    let record = pass::by_hand(&engine, work::pass, Pass::DetectAbandoned, options, &Actor::Command, &stop)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((record.actor.as_str(), record.dry_run, record.older_than_secs), ("cli", true, Some(0)));
    assert!(record.ended_at.is_some() && record.slot.is_none(), "{record:?}");
    assert!(queue(&engine).await.is_empty(), "a run by hand ends its job");
    assert_eq!(pass::runs(&engine, None, 10).await.unwrap().len(), 2);
    assert_eq!(pass::runs(&engine, Some(Pass::DetectAbandoned), 10).await.unwrap(), [record]);
}

/// A job that a process has claimed, and the record of the run that it began.
async fn begun(engine: &Engine, pass: Pass) -> pass_run::Model {
    let id = pass::enqueue(engine, pass, Options::default(), &operator("ann")).await.unwrap().unwrap();
    let mut job = job::Entity::find_by_id(id).one(engine.db.conn()).await.unwrap().unwrap().into_active_model();
    job.lease_token = Set(Some(uuid::Uuid::new_v4()));
    job.attempts = Set(1);
    job.run_at = Set(engine.clock.now() + TimeDelta::seconds(60));
    job.update(engine.db.conn()).await.unwrap();
    run_row(engine, pass, None).insert(engine.db.conn()).await.unwrap()
}

fn run_row(engine: &Engine, pass: Pass, ended_at: Option<DateTime<Utc>>) -> pass_run::ActiveModel {
    pass_run::ActiveModel {
        id: Set(entity::RunId::new()),
        pass: Set(pass.name().to_owned()),
        slot: Set(None),
        actor: Set("ann".to_owned()),
        actor_kind: Set(None),
        dry_run: Set(false),
        older_than_secs: Set(None),
        started_at: Set(engine.clock.now()),
        ended_at: Set(ended_at),
        found: Set(0),
        done: Set(0),
        failed: Set(0),
        skipped: Set(0),
        error: Set(None),
        details: Set(serde_json::json!({})),
    }
}

async fn a_lost_run_is_ended_and_done_again(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let lost = begun(&engine, Pass::Cleanup).await;
    let other = run_row(&engine, Pass::Orphans, None).insert(engine.db.conn()).await.unwrap();
    assert_eq!(jobs::work_off(&engine, work::job).await.unwrap(), 0, "it may live");
    engine.clock.advance(TimeDelta::seconds(61));
    assert_eq!(jobs::work_off(&engine, work::job).await.unwrap(), 1);
    let runs = pass::runs(&engine, Some(Pass::Cleanup), 10).await.unwrap();
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!((runs[0].actor.as_str(), runs[0].ended_at.is_some()), ("ann", true));
    assert_eq!((runs[1].id, runs[1].error.as_deref()), (lost.id, Some("the process was lost")));
    assert!(runs[1].ended_at.is_some());
    let orphans = pass::runs(&engine, Some(Pass::Orphans), 10).await.unwrap();
    assert_eq!(orphans, [other], "another pass is none of its business");
    assert!(queue(&engine).await.is_empty());
}

async fn old_runs_go_and_the_last_thousand_stay(db: TestDb) {
    let db = db.migrated().await;
    let engine = db.engine().await;
    let ended = Some(engine.clock.now());
    for _ in 0..11 {
        let rows = (0..100).map(|_| run_row(&engine, Pass::Cleanup, ended));
        pass_run::Entity::insert_many(rows).exec_without_returning(engine.db.conn()).await.unwrap();
    }
    let other = run_row(&engine, Pass::Orphans, ended).insert(engine.db.conn()).await.unwrap();
    let before = pass::runs(&engine, Some(Pass::Cleanup), 2_000).await.unwrap();
    assert_eq!(before.len(), 1_100);
    let stop = CancellationToken::new();
    let record =
        pass::run(&engine, work::pass, Pass::Cleanup, Options::default(), &operator("ann"), None, &stop).await.unwrap();
    let after = pass::runs(&engine, Some(Pass::Cleanup), 2_000).await.unwrap();
    assert_eq!(after[0], record);
    assert_eq!(after[1..], before[..999]);
    assert_eq!(pass::runs(&engine, Some(Pass::Orphans), 10).await.unwrap(), [other]);
    assert_eq!(pass_run::Entity::find().count(engine.db.conn()).await.unwrap(), 1_001);
}

async fn the_timetable_tells_how_it_stands(db: TestDb) {
    let db = db.migrated().await;
    let mut engine = db.engine().await;
    let mut settings = (*engine.settings).clone();
    settings.schedule.0.insert(Pass::Orphans, "never".to_owned());
    engine.settings = Arc::new(settings);
    take(&engine, Pass::DetectAbandoned).await;
    let stop = CancellationToken::new();
    let record =
        pass::run(&engine, work::pass, Pass::Orphans, Options::default(), &operator("ann"), None, &stop).await.unwrap();
    let status = schedule::status(&engine).await.unwrap();
    assert_eq!(status.iter().map(|one| one.pass).collect::<Vec<_>>(), Pass::ALL);
    let of = |pass| status.iter().find(|one| one.pass == pass).unwrap();
    let abandoned = of(Pass::DetectAbandoned);
    assert_eq!(abandoned.cron.as_deref(), Some(HOURLY));
    assert_eq!(abandoned.last_slot, Some(hour(&engine)));
    assert_eq!(abandoned.next_slot, Some(hour(&engine) + TimeDelta::hours(1)));
    assert_eq!(abandoned.last_run, None);
    let orphans = of(Pass::Orphans);
    assert_eq!((&orphans.cron, orphans.next_slot, orphans.last_slot), (&None, None, None));
    assert_eq!(orphans.last_run, Some(record));
}

async fn what_one_part_of_a_pass_meets_keeps_no_other_from_its_turn(db: TestDb) {
    let world = World::begin(db).await;
    let (db, engine) = (&world.db, &world.engine);
    let failed = world.failed().await;
    while feed::sequence(engine).await.unwrap() > 0 {}
    let retention = TimeDelta::seconds(i64::try_from(engine.settings.lifecycle.retention_secs).unwrap());
    let cleared = engine.clock.now() - retention - TimeDelta::hours(1);
    let forger = forger(db).await;
    let clear = "UPDATE upload_session SET storage_cleared_at = $1 WHERE id = $2";
    forge(&forger, clear, [cleared.into(), failed.id.into()]).await;
    // Nobody can tell any more whose uploads are served from elsewhere.
    db.execute("ALTER TABLE asset RENAME COLUMN object_key TO lost", []).await.unwrap();

    let run = Run::new(Options::default(), Actor::System, Duration::from_secs(60), CancellationToken::new());
    session::cleanup(engine, &run).await.unwrap_err();
    let gone =
        upload_tombstone::Entity::find().one(&db.pool).await.unwrap().expect("the rows are deleted all the same");
    assert_eq!(gone.upload_session_id, failed.id);
}
