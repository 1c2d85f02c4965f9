//! What happens to uploads that nobody finishes.

use chrono::TimeDelta;
use entity::upload_session;
use quaymaster::pass::{Pass, Report};
use sea_orm::EntityTrait;
use serde_json::json;

use crate::kit::{Actor, By, CHUNK, Fault, MIB, Op, TestApp, Upload, stories};

stories![
    an_idle_session_is_abandoned_and_leaves_nothing,
    a_session_that_never_opened_is_failed,
    an_expired_session_is_failed,
    a_dry_run_changes_nothing,
    a_client_that_asks_us_nothing_is_left_at_it,
    an_object_that_has_just_arrived_is_activity,
    nothing_lives_longer_than_its_longest_life,
    a_store_that_does_not_answer_well_costs_nobody_an_upload,
    a_bucket_that_fails_at_everything_is_left_to_the_next_run,
    what_somebody_wanted_completed_is_completed,
    a_client_that_comes_back_in_the_last_moment_wins,
    against_complete_one_of_the_two_wins,
    over_a_busy_batch_only_the_idle_are_failed,
    a_run_that_is_over_begins_with_nothing,
    two_runs_at_once_fail_each_session_once,
    killed_in_the_middle_the_next_run_goes_on,
    a_clock_that_jumps_back_fails_nobody,
];

const PASS: Pass = Pass::DetectAbandoned;

fn counts(report: &Report) -> (u64, u64, u64, u64) {
    (report.found, report.done, report.failed, report.skipped)
}

async fn reason(ann: &Actor, upload: &Upload) -> String {
    let session = ann.session(upload).await.ok();
    assert_eq!(session["status"], "FAILED", "{session}");
    session["failure_reason"].as_str().unwrap().to_owned()
}

async fn an_idle_session_is_abandoned_and_leaves_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    app.advance_with_the_store(TimeDelta::hours(23));
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
    let young = ann.initiate("young.mov", 2 * CHUNK).await;

    app.advance_with_the_store(TimeDelta::hours(2));
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (2, 2, 0, 0));
    assert_eq!(report.details(), json!({"expired": 0, "abandoned": 2, "storage_error": 0}));
    for upload in [&reel, &note] {
        assert_eq!(reason(&ann, upload).await, "abandoned");
        assert_eq!(ann.history(upload).await, ["initiate", "open", "fail"]);
    }
    assert_eq!(ann.status(&young).await, "UPLOADING");
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));

    assert_eq!(app.pass(Pass::Cleanup).await.found, 0, "a URL of theirs may live");
    assert_eq!(app.store.uploads().await.len(), 2);
    app.advance(TimeDelta::minutes(17));
    assert_eq!(app.pass(Pass::Cleanup).await.done, 2);
    assert!(app.store.objects().await.is_empty());
    assert_eq!(app.store.uploads().await.len(), 1, "the young one's");
}

async fn initiating(app: &TestApp, ann: &Actor) -> Upload {
    app.store.faults().drop_answers(Op::CreateMultipartUpload);
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    ann.initiate_with(&body).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    Upload::new(ann.list("status=INITIATING").await.ok()["data"][0].clone())
}

async fn a_session_that_never_opened_is_failed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = initiating(&app, &ann).await;
    app.advance(TimeDelta::minutes(14));
    assert_eq!(app.pass(PASS).await.found, 0);
    app.advance(TimeDelta::minutes(2));
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (1, 1, 0, 0));
    assert_eq!(report.details()["storage_error"], 1);
    assert_eq!(reason(&ann, &reel).await, "storage_error");
    assert_eq!(app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await.done, 1);
    assert!(app.store.uploads().await.is_empty(), "the upload that nobody recorded is found by its key");
}

async fn an_expired_session_is_failed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    app.advance_with_the_store(TimeDelta::days(8));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    assert_eq!(reason(&ann, &reel).await, "expired");
}

async fn a_dry_run_changes_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    let busy = ann.initiate("busy.mov", 2 * CHUNK).await;
    app.advance_with_the_store(TimeDelta::hours(25));
    app.store.faults().age(TimeDelta::hours(-25));
    // This part has just arrived.
    ann.put_part(&busy, 1).await;
    let before = upload_session::Entity::find().all(&app.database.rows).await.unwrap();
    let report = app.dry_pass(PASS, None).await;
    assert_eq!(counts(&report), (2, 0, 0, 1));
    assert_eq!(report.details()["abandoned"], 1);
    assert_eq!(upload_session::Entity::find().all(&app.database.rows).await.unwrap(), before);
    assert_eq!(ann.history(&reel).await, ["initiate", "open"]);
    assert_eq!(app.store.uploads().await.len(), 2);
}

async fn a_client_that_asks_us_nothing_is_left_at_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 3 * CHUNK).await;
    // An S3 client of its own, with a credential of its own: one part a day, and not a word to us.
    for number in 1..=3 {
        app.advance_with_the_store(TimeDelta::hours(25));
        let bytes = reel.part(number).to_vec();
        let part = app.store.s3.upload_part().bucket(&app.store.bucket).key(reel.key()).upload_id(reel.upload_id());
        part.part_number(i32::try_from(number).unwrap()).body(bytes.into()).send().await.unwrap();
        // The last one has just arrived.
        app.store.faults().age(TimeDelta::hours(-25));
        assert_eq!(counts(&app.pass(PASS).await), (1, 0, 0, 1), "after part {number}");
        assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0), "it counts as activity");
        assert_eq!(ann.status(&reel).await, "UPLOADING");
    }
    let held = ann.resume(&reel).await.ok();
    assert_eq!(held["uploaded_parts"].as_array().unwrap().len(), 3);
    ann.complete(&reel).await.created();
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

async fn an_object_that_has_just_arrived_is_activity(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    // Our clock jumps; the store's does not, and by that the object is new.
    app.advance(TimeDelta::hours(25));
    assert_eq!(counts(&app.pass(PASS).await), (1, 0, 0, 1));
    ann.complete(&note).await.created();
}

async fn nothing_lives_longer_than_its_longest_life(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    for _ in 0..4 {
        app.advance(TimeDelta::days(6));
        // By the store's clock the part is new, each time.
        assert_eq!(counts(&app.pass(PASS).await), (1, 0, 0, 1));
    }
    app.advance(TimeDelta::hours(6 * 24 + 1));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0), "30 days are over");
    assert_eq!(reason(&ann, &reel).await, "expired");
}

const ENDLESS_PARTS: &str = "<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>";

async fn a_store_that_does_not_answer_well_costs_nobody_an_upload(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    app.advance_with_the_store(TimeDelta::hours(25));
    for fault in [
        Fault::Answer(500, "InternalError"),
        Fault::Answer(403, "AccessDenied"),
        Fault::Answer(404, "NoSuchBucket"),
        Fault::DropRequest,
        Fault::CutAnswer,
        Fault::Say(ENDLESS_PARTS.to_owned()),
        Fault::Say("<html>Welcome to the hotel's network</html>".to_owned()),
        Fault::Hang,
    ] {
        app.store.faults().order(Op::ListParts, fault.clone());
        let report = app.pass(PASS).await;
        assert_eq!(counts(&report), (1, 0, 1, 0), "{fault:?}");
        app.store.heal();
        assert_eq!(ann.history(&reel).await, ["initiate", "open"], "{fault:?}");
        assert_eq!(app.store.faults().calls(Op::AbortMultipartUpload), 0, "{fault:?}");
    }
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    assert_eq!(reason(&ann, &reel).await, "abandoned");
}

async fn a_bucket_that_fails_at_everything_is_left_to_the_next_run(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_LIFECYCLE__CONCURRENCY", "2"), ("QUAYMASTER_LIFECYCLE__BATCH_ROWS", "10")]).await;
    let ann = app.tenant("acme").user("ann");
    let files: Vec<_> = (0..25).map(|n| json!({"file_name": format!("{n}"), "file_size": 6 * MIB})).collect();
    ann.initiate_batch(&json!({"files": files})).await.created();
    app.advance_with_the_store(TimeDelta::hours(25));
    app.store.faults().order(Op::ListParts, Fault::Answer(403, "AccessDenied"));
    let before = app.store.faults().calls(Op::ListParts);
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (25, 0, 25, 0));
    let asked = app.store.faults().calls(Op::ListParts) - before;
    assert!((16..=18).contains(&asked), "after 16 failures in a row it is asked no more: {asked}");
    let errors = report.details()["errors"].clone();
    assert!(errors[&app.store.bucket].as_str().is_some_and(|why| why.contains("in a row")), "{errors}");
    let of_session = errors.as_object().unwrap().values().filter(|why| why.as_str().unwrap().contains("AccessDenied"));
    assert!((16..=18).contains(&of_session.count()), "{errors}");
    app.store.heal();
    assert_eq!(counts(&app.pass(PASS).await), (25, 25, 0, 0));
}

async fn what_somebody_wanted_completed_is_completed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    app.store.faults().drop_answers(Op::CompleteMultipartUpload);
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    app.advance_with_the_store(TimeDelta::hours(25));
    assert_eq!(counts(&app.pass(PASS).await), (1, 0, 0, 1));
    assert_eq!(ann.status(&reel).await, "COMPLETED");
    ann.complete(&reel).await.ok();
}

async fn a_client_that_comes_back_in_the_last_moment_wins(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    app.advance_with_the_store(TimeDelta::hours(25));
    let held = app.store.faults().hold_answer(Op::ListParts);
    let passing = tokio::spawn({
        let app = app.clone();
        async move { app.pass(PASS).await }
    });
    held.arrived().await;
    // The store has said that nothing came; then somebody did.
    ann.activity(&reel).await.ok();
    held.release();
    assert_eq!(counts(&passing.await.unwrap()), (1, 0, 0, 1));
    assert_eq!(ann.status(&reel).await, "UPLOADING");
}

async fn against_complete_one_of_the_two_wins(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for round in 0..8 {
        let file = ann.initiate("file.bin", 6 * MIB).await;
        ann.send_all_parts(&file).await;
        app.advance_with_the_store(TimeDelta::hours(25));
        let (report, completed) = futures_util::future::join(app.pass(PASS), ann.complete(&file)).await;
        match ann.status(&file).await.as_str() {
            "COMPLETED" => {
                assert!(completed.status == 200 || completed.status == 201, "round {round}: {completed}");
                assert_eq!(report.done, 0, "round {round}");
            }
            "FAILED" => {
                completed.is_problem(409, "illegal-transition");
                assert_eq!(report.done, 1, "round {round}");
            }
            other => panic!("round {round} ended {other}"),
        }
    }
}

async fn over_a_busy_batch_only_the_idle_are_failed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut idle = Vec::new();
    for n in 0..5 {
        idle.push(ann.initiate(&format!("idle-{n}"), 6 * MIB).await);
    }
    // Parts of these keep coming, and the clients say so now and then.
    let (stop, is_over) = tokio::sync::watch::channel(false);
    let mut clients = Vec::new();
    for n in 0..5 {
        let (ann, is_over) = (ann.clone(), is_over.clone());
        clients.push(tokio::spawn(async move {
            let (mut done, mut failed) = (0, 0);
            while !*is_over.borrow() {
                let file = ann.initiate(&format!("busy-{n}"), 10).await;
                let sent = ann.send(&file).await;
                let reply = ann.complete(&file).await;
                match reply.status {
                    // 200 where the pass itself has finished what was asked for.
                    200 | 201 => done += 1,
                    409 => {
                        // The pass began after this session's last activity: it was idle by the word of who asked.
                        assert_eq!(reason(&ann, &file).await, "abandoned", "{sent} {reply}");
                        failed += 1;
                    }
                    _ => panic!("{sent} {reply}"),
                }
            }
            (done, failed)
        }));
    }
    let mut failed = 0;
    for _ in 0..10 {
        failed += app.pass_older_than(PASS, TimeDelta::zero()).await.done;
    }
    stop.send(true).unwrap();
    let (mut completed, mut cut_off) = (0, 0);
    for client in clients {
        let (done, failed) = client.await.unwrap();
        completed += done;
        cut_off += failed;
    }
    for file in &idle {
        assert_eq!(reason(&ann, file).await, "abandoned");
    }
    assert!(completed > 0);
    assert_eq!(failed, 5 + cut_off, "each failure is that of an idle session, or a client was told of it");
}

async fn a_run_that_is_over_begins_with_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    app.advance_with_the_store(TimeDelta::hours(25));
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    let run = quaymaster::pass::Run::new(Default::default(), By::System, std::time::Duration::from_secs(60), stop);
    let report = quaymaster::session::detect_abandoned(&app.engine().await, &run).await.unwrap();
    assert_eq!(counts(&report), (0, 0, 0, 0));
    assert_eq!(ann.status(&reel).await, "UPLOADING");
}

async fn two_runs_at_once_fail_each_session_once(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.restart_with(&[("QUAYMASTER_LIFECYCLE__BATCH_ROWS", "3"), ("QUAYMASTER_LIFECYCLE__CONCURRENCY", "2")]).await;
    let mut files = Vec::new();
    for n in 0..10 {
        files.push(ann.initiate(&format!("{n}"), if n % 2 == 0 { 10 } else { 6 * MIB }).await);
    }
    app.advance_with_the_store(TimeDelta::hours(25));
    let (one, other) = futures_util::future::join(app.pass(PASS), app.pass(PASS)).await;
    assert_eq!(one.done + other.done, 10, "{one:?} {other:?}");
    assert_eq!(one.failed + other.failed, 0);
    for file in &files {
        assert_eq!(ann.history(file).await, ["initiate", "open", "fail"]);
    }
}

async fn killed_in_the_middle_the_next_run_goes_on(app: TestApp) {
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let mut files = Vec::new();
    for n in 0..6 {
        files.push(ann.initiate(&format!("{n}"), if n < 3 { 10 } else { 6 * MIB }).await);
    }
    // The oldest are failed by then: no parts are asked for of a small file.
    app.set("QUAYMASTER_LIFECYCLE__CONCURRENCY", "1");
    let held = app.store.faults().hold_request(Op::ListParts);
    let mut pass = app.pass_to_kill("detect-abandoned");
    held.arrived().await;
    pass.kill().await.unwrap();
    drop(held);
    assert_eq!(ann.list("status=FAILED").await.ok()["data"].as_array().unwrap().len(), 3);

    app.pass_older_than(PASS, TimeDelta::zero()).await;
    for file in &files {
        assert_eq!(ann.history(file).await, ["initiate", "open", "fail"]);
    }
    app.pass_older_than(Pass::Cleanup, TimeDelta::zero()).await;
    assert!(app.store.uploads().await.is_empty());
}

async fn a_clock_that_jumps_back_fails_nobody(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    app.advance(TimeDelta::days(-3));
    assert_eq!(app.pass(PASS).await.found, 0);
    assert_eq!(app.pass_older_than(PASS, TimeDelta::zero()).await.found, 0);
    app.advance(TimeDelta::days(3));
    assert_eq!(ann.status(&reel).await, "UPLOADING");
}
