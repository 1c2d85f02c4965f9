//! What a process that died, or an answer that was lost, left half done.

use chrono::TimeDelta;
use quaymaster::jobs::{self, State};
use quaymaster::pass::{Pass, Report};
use quaymaster::work;
use serde_json::json;

use crate::kit::{Actor, CHUNK, Fault, MIB, Op, TestApp, Upload, stories};
use crate::promote::{completed, promoted};

stories![
    an_upload_that_nobody_recorded_is_opened,
    one_that_the_store_never_made_is_left_alone,
    an_object_that_nobody_recorded_becomes_its_asset,
    parts_that_are_all_there_are_assembled,
    a_direct_upload_is_finished,
    what_nobody_wanted_completed_is_left_alone,
    what_lacks_bytes_is_left_to_its_client,
    what_the_store_has_lost_is_failed,
    an_object_of_another_size_is_failed,
    a_request_that_may_still_run_is_left_to_it,
    a_refused_completion_is_not_taken_up_again,
    a_store_that_does_not_answer_leaves_it_to_the_next_run,
    beside_the_same_request_one_asset_comes_of_it,
    a_promotion_that_was_given_up_is_taken_up_again,
    a_dry_run_changes_nothing,
    killed_in_the_middle_the_next_run_goes_on,
];

const PASS: Pass = Pass::Reconcile;

fn counts(report: &Report) -> (u64, u64, u64, u64) {
    (report.found, report.done, report.failed, report.skipped)
}

async fn initiating(app: &TestApp, ann: &Actor, fault: Fault) -> Upload {
    app.store.faults().order(Op::CreateMultipartUpload, fault);
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    ann.initiate_with(&body).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    Upload::new(ann.list("status=INITIATING").await.ok()["data"][0].clone())
}

/// All parts are there, and the store fails while it is asked to make the object of them.
async fn completing(app: &TestApp, ann: &Actor, fault: Fault) -> Upload {
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    app.store.faults().order(Op::CompleteMultipartUpload, fault);
    let body = json!({"upload_session_id": reel.id, "title": "The reel"});
    ann.complete_with(&body).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    reel
}

async fn an_upload_that_nobody_recorded_is_opened(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = initiating(&app, &ann, Fault::DropAnswer).await;
    // A second one, as a race of two requests may leave it.
    let second = app.store.s3.create_multipart_upload().bucket(&app.store.bucket).key(reel.key());
    second.send().await.unwrap();
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0), "a request may still be at it");
    app.advance(TimeDelta::minutes(2));
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (1, 1, 0, 0));
    assert_eq!(report.details(), json!({"opened": 1, "finished": 0, "promotions": 0}));
    let reel = Upload::new(ann.session(&reel).await.ok());
    assert_eq!(reel.session["status"], "UPLOADING");
    assert_eq!(app.store.uploads().await, [(reel.key(), reel.upload_id().to_owned())]);
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
    assert_eq!(ann.history(&reel).await, ["initiate", "storage.open_failed", "open", "storage.abort", "complete"]);
}

async fn one_that_the_store_never_made_is_left_alone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = initiating(&app, &ann, Fault::DropRequest).await;
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.pass(PASS).await), (1, 0, 0, 1));
    assert_eq!(ann.status(&reel).await, "INITIATING");
}

async fn an_object_that_nobody_recorded_becomes_its_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = completing(&app, &ann, Fault::DropAnswer).await;
    assert_eq!(app.store.objects().await.len(), 1);
    app.advance(TimeDelta::minutes(2));
    let bob = app.tenant("acme").user("bob");
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (1, 1, 0, 0));
    assert_eq!(report.details(), json!({"opened": 0, "finished": 1, "promotions": 0}));
    let asset = ann.complete(&reel).await.ok();
    assert_eq!(asset["title"], "The reel", "as it was asked for");
    assert_eq!(bob.get(&format!("/app/assets/{}", asset["asset_id"].as_str().unwrap())).await.ok(), asset);
    let events = ann.get(&format!("/app/uploads/{}/events", reel.id)).await.ok();
    assert_eq!(events["data"][3]["event"], "complete");
    assert_eq!(events["data"][3]["actor"], "ann", "it is finished in the name of who asked");
}

async fn parts_that_are_all_there_are_assembled(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = completing(&app, &ann, Fault::DropRequest).await;
    assert!(app.store.objects().await.is_empty());
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    assert!(app.store.read(&reel.key()).await == reel.bytes);
    ann.complete(&reel).await.ok();
}

async fn a_direct_upload_is_finished(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    app.store.faults().order(Op::HeadObject, Fault::DropRequest);
    ann.complete(&note).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    assert_eq!(ann.status(&note).await, "COMPLETED");
}

async fn what_nobody_wanted_completed_is_left_alone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    app.advance(TimeDelta::hours(1));
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
    assert_eq!(counts(&app.pass_older_than(PASS, TimeDelta::zero()).await), (0, 0, 0, 0));
    for upload in [&reel, &note] {
        assert_eq!(ann.status(upload).await, "UPLOADING");
    }
}

async fn what_lacks_bytes_is_left_to_its_client(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    app.store.faults().order(Op::ListParts, Fault::DropRequest);
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    app.advance(TimeDelta::minutes(2));
    for _ in 0..2 {
        assert_eq!(counts(&app.pass(PASS).await), (1, 0, 0, 1), "nobody has answered its wish");
    }
    ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    ann.put_part(&reel, 2).await;
    ann.complete(&reel).await.created();
}

async fn what_the_store_has_lost_is_failed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = completing(&app, &ann, Fault::DropRequest).await;
    app.store.abort(&reel.key(), reel.upload_id()).await;
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    assert_eq!(ann.session(&reel).await.ok()["failure_reason"], "storage_error");
}

async fn an_object_of_another_size_is_failed(app: TestApp) {
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    let reel = completing(&app, &ann, Fault::DropAnswer).await;
    let put = app.store.s3.put_object().bucket(&app.store.bucket).key(reel.key());
    put.body(b"something else".to_vec().into()).send().await.unwrap();
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    assert_eq!(ann.session(&reel).await.ok()["failure_reason"], "verification_failed");
    assert_eq!(app.store.objects().await.len(), 1, "it is the cleanup's");
}

async fn a_request_that_may_still_run_is_left_to_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = completing(&app, &ann, Fault::DropAnswer).await;
    app.advance(TimeDelta::seconds(55));
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
    assert_eq!(ann.status(&reel).await, "UPLOADING");
    ann.complete(&reel).await.created();
}

async fn a_refused_completion_is_not_taken_up_again(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    ann.put_part(&reel, 2).await;
    let parts = json!([{"part_number": 1, "etag": "another"}, {"part_number": 2, "etag": "one"}]);
    let body = json!({"upload_session_id": reel.id, "parts": parts});
    ann.complete_with(&body).await.is_problem(409, "parts-mismatch");
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
    assert_eq!(ann.status(&reel).await, "UPLOADING", "nobody has agreed to these parts");
}

async fn a_store_that_does_not_answer_leaves_it_to_the_next_run(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let opening = initiating(&app, &ann, Fault::DropAnswer).await;
    let reel = completing(&app, &ann, Fault::DropAnswer).await;
    app.advance(TimeDelta::minutes(2));
    for fault in [Fault::Answer(500, "InternalError"), Fault::DropRequest, Fault::Hang] {
        app.store.faults().order_all(fault.clone());
        assert_eq!(counts(&app.pass(PASS).await), (2, 0, 2, 0), "{fault:?}");
        app.store.heal();
        assert_eq!(ann.status(&opening).await, "INITIATING");
        assert_eq!(ann.status(&reel).await, "UPLOADING");
    }
    assert_eq!(counts(&app.pass(PASS).await), (2, 2, 0, 0));
}

async fn beside_the_same_request_one_asset_comes_of_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for round in 0..6 {
        let fault = if round % 2 == 0 { Fault::DropAnswer } else { Fault::DropRequest };
        let reel = completing(&app, &ann, fault).await;
        app.advance(TimeDelta::minutes(2));
        let (report, reply) = futures_util::future::join(app.pass(PASS), ann.complete(&reel)).await;
        assert_eq!(report.failed, 0, "round {round}: {report:?}");
        assert!(reply.status == 200 || reply.status == 201, "round {round}: {reply}");
        assert_eq!(report.done, u64::from(reply.status == 200), "round {round}: {report:?} {reply}");
        assert_eq!(ann.history(&reel).await, ["initiate", "open", "storage.complete_failed", "complete"]);
    }
}

/// An outage may last longer than the attempts of a job.
async fn a_promotion_that_was_given_up_is_taken_up_again(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_JOBS__MAX_ATTEMPTS", "1")]).await;
    let ann = app.tenant("acme").user("ann");
    let (_, asset) = completed(&ann, "note.txt", 10).await;
    let (other, _) = completed(&ann, "other.txt", 10).await;
    let engine = app.engine().await;
    app.advance(TimeDelta::minutes(3));
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0), "their jobs are in the queue");
    app.store.faults().order(Op::CopyObject, Fault::Answer(503, "SlowDown"));
    jobs::work_off(&engine, work::job).await.unwrap();
    app.store.heal();
    let dead = jobs::Filter { state: Some(State::Dead), ..jobs::Filter::default() };
    assert_eq!(jobs::list(&engine, dead, None, 10).await.unwrap().items.len(), 2);
    // Somebody has retried the one by hand meanwhile.
    promoted(&app, &ann, &other).await.unwrap();

    assert_eq!(counts(&app.dry_pass(PASS, None).await), (1, 0, 0, 0));
    assert_eq!(jobs::work_off(&engine, work::job).await.unwrap(), 0, "nothing was put in the queue");
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (1, 1, 0, 0));
    assert_eq!(report.details()["promotions"], 1);
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0), "once");
    assert_eq!(jobs::list(&engine, dead, None, 10).await.unwrap().items.len(), 1, "the other's, which nobody needs");
    jobs::work_off(&engine, work::job).await.unwrap();
    assert_eq!(ann.get(&format!("/app/assets/{asset}")).await.ok()["status"], "READY");
}

async fn a_dry_run_changes_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let opening = initiating(&app, &ann, Fault::DropAnswer).await;
    let reel = completing(&app, &ann, Fault::DropRequest).await;
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.dry_pass(PASS, None).await), (2, 0, 0, 0));
    assert_eq!(ann.history(&opening).await, ["initiate", "storage.open_failed"]);
    assert_eq!(ann.history(&reel).await, ["initiate", "open", "storage.complete_failed"]);
    assert!(app.store.objects().await.is_empty());
}

async fn killed_in_the_middle_the_next_run_goes_on(app: TestApp) {
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let reel = completing(&app, &ann, Fault::DropRequest).await;
    let opening = initiating(&app, &ann, Fault::DropAnswer).await;
    for has_done in [false, true] {
        let (faults, op) = (app.store.faults(), Op::CompleteMultipartUpload);
        let held = if has_done { faults.hold_answer(op) } else { faults.hold_request(op) };
        let mut pass = app.pass_to_kill("reconcile");
        held.arrived().await;
        pass.kill().await.unwrap();
    }
    assert_eq!(ann.status(&opening).await, "UPLOADING");
    app.pass_older_than(PASS, TimeDelta::zero()).await;
    assert_eq!(ann.history(&reel).await, ["initiate", "open", "storage.complete_failed", "complete"]);
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}
