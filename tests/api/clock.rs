//! A wall clock that is put forward or back while a server runs: nothing that lives is ended, and the passes go on.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::{pass_run, schedule, upload_session};
use quaymaster::clock::Clock;
use quaymaster::engine::Engine;
use quaymaster::pass::{self, Options, Pass, RunRecord};
use quaymaster::work;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::kit::{By, CHUNK, MIB, Op, TestApp, Upload, stories};
use crate::promote::completed;

stories![
    put_forward_it_ends_nothing_that_lives,
    put_forward_with_the_stores_it_ends_nothing_that_lives,
    what_it_left_in_the_future_holds_no_pass_up,
];

const PATIENCE: Duration = Duration::from_secs(20);

async fn run(app: &TestApp, pass: Pass) -> RunRecord {
    let stop = CancellationToken::new();
    pass::run(&app.engine().await, work::pass, pass, Options::default(), &By::System, None, &stop).await.unwrap()
}

/// A run that does nothing but say so.
async fn is_told(app: &TestApp, pass: Pass, says: &str) {
    let run = run(app, pass).await;
    assert!(run.error.as_ref().is_some_and(|error| error.contains(says)), "{run:?}");
    assert_eq!((run.found, run.done, run.failed, run.skipped), (0, 0, 0, 0));
}

fn counts(run: &RunRecord) -> (i64, i64, i64, i64) {
    assert_eq!(run.error, None);
    (run.found, run.done, run.failed, run.skipped)
}

async fn put_forward_it_ends_nothing_that_lives(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let over = ann.initiate("over", 10).await;
    ann.cancel(&over).await.ok();
    let idle = ann.initiate("idle", 10).await;
    app.advance_with_the_store(TimeDelta::hours(23));
    assert_eq!(counts(&run(&app, Pass::Cleanup).await), (1, 1, 0, 0));
    // Nothing of it is in the store yet.
    let small = ann.initiate("small", 10).await;
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    app.store.faults().drop_answers(Op::CreateMultipartUpload);
    ann.initiate_with(&json!({"file_name": "new", "file_size": 6 * MIB})).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    let new = Upload::new(ann.list("status=INITIATING").await.ok()["data"][0].clone());

    // Past every threshold, a session's longest life and the retention of its rows.
    app.clock.put(TimeDelta::days(100));
    is_told(&app, Pass::DetectAbandoned, "jumped forward by 2400 h 0 min").await;
    for pass in [Pass::DetectAbandoned, Pass::Cleanup] {
        assert_eq!(counts(&run(&app, pass).await), (0, 0, 0, 0), "{pass:?}");
    }
    for (upload, status) in [(&small, "UPLOADING"), (&reel, "UPLOADING"), (&idle, "UPLOADING"), (&new, "INITIATING")] {
        assert_eq!(ann.status(upload).await, status);
    }
    assert_eq!(ann.status(&over).await, "CANCELLED", "its rows are there");

    // Time goes by all the same: what was idle for 23 hours is idle for 25, and what was never opened is.
    app.advance_with_the_store(TimeDelta::hours(2));
    assert_eq!(counts(&run(&app, Pass::DetectAbandoned).await), (2, 2, 0, 0));
    assert_eq!((ann.status(&idle).await, ann.status(&new).await), ("FAILED".to_owned(), "FAILED".to_owned()));

    app.clock.put(-TimeDelta::days(100));
    is_told(&app, Pass::DetectAbandoned, "jumped back by 2400 h 0 min").await;
    assert_eq!(counts(&run(&app, Pass::DetectAbandoned).await), (0, 0, 0, 0));
    assert_eq!(ann.send(&small).await, 200);
    ann.complete(&small).await.created();
    ann.put_part(&reel, 2).await;
    ann.complete(&reel).await.created();
}

async fn put_forward_with_the_stores_it_ends_nothing_that_lives(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    // Both are a day behind, and are put right together: what came before is a day old for both.
    app.clock.put(-TimeDelta::hours(25));
    is_told(&app, Pass::DetectAbandoned, "jumped back by 25 h 0 min").await;
    assert_eq!(counts(&run(&app, Pass::DetectAbandoned).await), (0, 0, 0, 0));
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    app.clock.put(TimeDelta::hours(25));
    app.store.faults().age(TimeDelta::hours(25));
    let idle = upload_session::Entity::find().one(&app.database.rows).await.unwrap().unwrap().last_activity_at;
    assert!(app.clock.now() - idle > TimeDelta::hours(24), "by the clock it is idle");

    is_told(&app, Pass::DetectAbandoned, "jumped forward by 25 h 0 min").await;
    assert_eq!(counts(&run(&app, Pass::DetectAbandoned).await), (0, 0, 0, 0));
    ann.put_part(&reel, 2).await;
    ann.complete(&reel).await.created();
}

async fn runs_of(app: &TestApp, pass: &str) -> usize {
    let runs = pass_run::Entity::find().all(&app.database.rows).await.unwrap();
    runs.iter().filter(|run| run.pass == pass && run.ended_at.is_some() && run.error.is_none()).count()
}

async fn what_it_left_in_the_future_holds_no_pass_up(app: TestApp) {
    // All that was completed then is to be promoted in ten years.
    let ann = app.tenant("acme").user("ann");
    app.clock.put(TimeDelta::days(3_650));
    let (_, asset) = completed(&ann, "note.txt", 10).await;
    app.clock.put(-TimeDelta::days(3_650));
    // A process whose clock was ahead has taken a slot and died over a job.
    let ahead = Clock::default();
    ahead.put(TimeDelta::days(3_650));
    let engine = Engine { clock: ahead.clone(), ..app.engine().await };
    let job = pass::enqueue(&engine, Pass::Reconcile, Options::default(), &By::System).await.unwrap();
    assert!(job.is_some());
    let slot = schedule::Model { name: "reconcile".to_owned(), last_slot: ahead.now() };
    slot.into_active_model().reset_all().insert(&app.database.rows).await.unwrap();
    let missed = schedule::Model { name: "cleanup".to_owned(), last_slot: app.clock.now() + TimeDelta::days(2) };
    missed.into_active_model().reset_all().insert(&app.database.rows).await.unwrap();

    let env = [
        ("QUAYMASTER_JOBS__ENABLED", "true"),
        ("QUAYMASTER_SCHEDULE__RECONCILE", "* * * * * *"),
        ("QUAYMASTER_SCHEDULE__CLEANUP", "* * * * * *"),
    ];
    app.restart_with(&env).await;
    let started = Instant::now();
    for pass in ["reconcile", "cleanup"] {
        while runs_of(&app, pass).await < 2 {
            assert!(started.elapsed() < PATIENCE, "{pass} does not run");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let path = format!("/app/assets/{asset}");
    while ann.get(&path).await.ok()["status"] != "READY" {
        assert!(started.elapsed() < PATIENCE, "the asset is not promoted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let slots = schedule::Entity::find().all(&app.database.rows).await.unwrap();
    assert!(slots.iter().all(|slot| slot.last_slot <= app.clock.now()), "{slots:?}");
}
