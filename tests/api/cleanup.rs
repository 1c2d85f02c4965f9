//! What ended sessions leave, and when it goes.

use std::time::Duration;

use chrono::TimeDelta;
use entity::{upload_event, upload_session, upload_tombstone};
use quaymaster::asset::Promoted;
use quaymaster::feed;
use quaymaster::pass::{Pass, Report};
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;

use crate::kit::{Actor, CHUNK, Fault, MIB, Op, TestApp, Upload, stories};
use crate::promote::promoted;

stories![
    what_a_cancel_could_not_reach_is_cleared,
    it_waits_for_the_last_url,
    a_late_put_is_removed,
    an_upload_that_nobody_recorded_is_found_by_its_key,
    a_live_session_is_no_matter_to_it,
    a_dry_run_changes_nothing,
    a_store_that_does_not_answer_well_is_tried_again,
    an_upload_that_does_not_go_is_not_called_cleared,
    one_session_s_trouble_is_no_matter_to_the_others,
    two_runs_at_once_give_the_bytes_back_once,
    a_completed_upload_goes_once_its_asset_is_elsewhere,
    rows_past_their_time_leave_a_tombstone,
    killed_in_the_middle_the_next_run_goes_on,
    killed_while_it_deletes_rows_the_next_run_goes_on,
];

const PASS: Pass = Pass::Cleanup;

fn counts(report: &Report) -> (u64, u64, u64, u64) {
    (report.found, report.done, report.failed, report.skipped)
}

pub async fn now(app: &TestApp) -> Report {
    app.pass_older_than(PASS, TimeDelta::zero()).await
}

/// A CANCELLED session whose upload, with a part, is still in the store.
pub async fn left_behind(app: &TestApp, ann: &Actor) -> Upload {
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    app.store.faults().order(Op::AbortMultipartUpload, Fault::DropRequest);
    app.expect_leftovers();
    ann.cancel(&reel).await.ok();
    app.store.heal();
    reel
}

async fn must_be_empty(app: &TestApp) {
    assert_eq!(app.store.objects().await, []);
    assert_eq!(app.store.uploads().await, []);
}

async fn what_a_cancel_could_not_reach_is_cleared(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = left_behind(&app, &ann).await;
    assert_eq!(app.store.uploads().await.len(), 1);
    app.advance(TimeDelta::minutes(17));
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (1, 1, 0, 0));
    assert_eq!(report.details(), json!({"cleared": 1, "moved": 0, "rows_deleted": 0, "tombstones_pruned": 0}));
    must_be_empty(&app).await;
    assert_eq!(ann.history(&reel).await, ["initiate", "open", "cancel", "storage.discard_failed", "storage.clear"]);
    assert_eq!(ann.session(&reel).await.ok()["version"], 3, "no change of state");
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
}

async fn it_waits_for_the_last_url(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    ann.cancel(&note).await.ok();
    // 15 minutes of the URL's life, and one more.
    app.advance(TimeDelta::minutes(15));
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
    app.advance(TimeDelta::minutes(2));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
}

async fn a_late_put_is_removed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    ann.cancel(&note).await.ok();
    app.expect_leftovers();
    assert_eq!(ann.send(&note).await, 200, "its URL still works");
    assert_eq!(app.store.objects().await.len(), 1);
    app.advance(TimeDelta::minutes(17));
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    must_be_empty(&app).await;
}

async fn an_upload_that_nobody_recorded_is_found_by_its_key(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.store.faults().drop_answers(Op::CreateMultipartUpload);
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
    ann.initiate_with(&body).await.is_problem(503, "storage-unavailable");
    app.store.faults().order(Op::ListMultipartUploads, Fault::Answer(500, "InternalError"));
    app.expect_leftovers();
    let reel = Upload::new(ann.list("status=INITIATING").await.ok()["data"][0].clone());
    ann.cancel(&reel).await.ok();
    app.store.heal();
    assert_eq!(app.store.uploads().await.len(), 1);
    assert_eq!(counts(&now(&app).await), (1, 1, 0, 0));
    must_be_empty(&app).await;
}

async fn a_live_session_is_no_matter_to_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    ann.complete(&note).await.created();
    assert_eq!(counts(&now(&app).await), (0, 0, 0, 0));
    ann.put_part(&reel, 2).await;
    ann.complete(&reel).await.created();
    // Completed, but nothing has been copied anywhere: the only copy is not touched.
    assert_eq!(counts(&now(&app).await), (0, 0, 0, 0));
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

async fn a_dry_run_changes_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    left_behind(&app, &ann).await;
    let before = upload_session::Entity::find().all(&app.database.rows).await.unwrap();
    assert_eq!(counts(&app.dry_pass(PASS, None).await), (0, 0, 0, 0), "it is not due yet");
    let report = app.dry_pass(PASS, Some(TimeDelta::zero())).await;
    assert_eq!(counts(&report), (1, 0, 0, 0));
    assert_eq!(report.details()["cleared"], 1);
    assert_eq!(upload_session::Entity::find().all(&app.database.rows).await.unwrap(), before);
    assert_eq!(app.store.uploads().await.len(), 1);
}

const ENDLESS_PARTS: &str = "<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>";
const ENDLESS_UPLOADS: &str =
    "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>";

async fn a_store_that_does_not_answer_well_is_tried_again(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = left_behind(&app, &ann).await;
    let mut tries = 0;
    for (op, fault) in [
        (Op::AbortMultipartUpload, Fault::Answer(500, "InternalError")),
        (Op::AbortMultipartUpload, Fault::Answer(403, "AccessDenied")),
        (Op::ListMultipartUploads, Fault::Say(ENDLESS_UPLOADS.to_owned())),
        (Op::ListMultipartUploads, Fault::Hang),
        (Op::ListParts, Fault::Say(ENDLESS_PARTS.to_owned())),
        (Op::DeleteObject, Fault::DropRequest),
        (Op::HeadObject, Fault::Answer(403, "AccessDenied")),
    ] {
        app.store.faults().order(op, fault.clone());
        assert_eq!(counts(&now(&app).await), (1, 0, 1, 0), "{op:?} {fault:?}");
        app.store.heal();
        tries += 1;
        let history = ann.history(&reel).await;
        assert_eq!(history.iter().filter(|event| *event == "storage.clear_failed").count(), tries);
        let usage = app.usage(&ann.tenant).await;
        assert_eq!((usage.live_sessions, usage.bytes), (0, 2 * CHUNK as i64), "the bytes may still be there");
    }
    let events = ann.get(&format!("/app/uploads/{}/events", reel.id)).await.ok();
    let cause = events["data"][4]["details"]["cause"].as_str().unwrap().to_owned();
    assert_eq!(cause, "AbortMultipart failed: Unavailable (InternalError)");
    assert_eq!(counts(&now(&app).await), (1, 1, 0, 0));
    assert_eq!(app.usage(&ann.tenant).await.bytes, 0);
    must_be_empty(&app).await;
}

async fn an_upload_that_does_not_go_is_not_called_cleared(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = left_behind(&app, &ann).await;
    // The store says yes to each abort, and keeps the upload.
    app.store.faults().order(Op::AbortMultipartUpload, Fault::Say(String::new()));
    assert_eq!(counts(&now(&app).await), (1, 0, 1, 0));
    assert!(app.store.faults().calls(Op::AbortMultipartUpload) < 20);
    app.store.heal();
    assert_eq!(ann.history(&reel).await.last().unwrap(), "storage.clear_failed");
    assert_eq!(counts(&now(&app).await), (1, 1, 0, 0));
    must_be_empty(&app).await;
}

async fn one_session_s_trouble_is_no_matter_to_the_others(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.restart_with(&[("QUAYMASTER_LIFECYCLE__BATCH_ROWS", "2"), ("QUAYMASTER_LIFECYCLE__CONCURRENCY", "2")]).await;
    for _ in 0..7 {
        left_behind(&app, &ann).await;
    }
    // Of all the last looks, one is refused.
    app.store.faults().order_once(Op::HeadObject, Fault::Answer(403, "AccessDenied"));
    assert_eq!(counts(&now(&app).await), (7, 6, 1, 0));
    assert_eq!(counts(&now(&app).await), (1, 1, 0, 0));
    must_be_empty(&app).await;
}

async fn two_runs_at_once_give_the_bytes_back_once(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut files = Vec::new();
    for _ in 0..6 {
        files.push(left_behind(&app, &ann).await);
    }
    let live = ann.initiate("live", 7).await;
    let (one, other) = futures_util::future::join(now(&app), now(&app)).await;
    assert_eq!(one.done + other.done, 6, "{one:?} {other:?}");
    assert_eq!(one.failed + other.failed, 0, "{one:?} {other:?}");
    let usage = app.usage(&ann.tenant).await;
    assert_eq!((usage.live_sessions, usage.bytes), (1, 7));
    for file in &files {
        assert_eq!(ann.history(file).await.last().unwrap(), "storage.clear");
        assert_eq!(ann.history(file).await.len(), 5);
    }
    ann.cancel(&live).await.ok();
}

/// Promotes, and the store keeps the uploaded object; answers where its copy is.
async fn promote(app: &TestApp, ann: &Actor, upload: &Upload) -> String {
    app.store.faults().order(Op::DeleteObject, Fault::Answer(403, "AccessDenied"));
    let promoted = promoted(app, ann, upload).await.unwrap();
    app.store.heal();
    match promoted {
        Promoted::Ready(asset) => asset.object_key,
        other => panic!("{other:?}"),
    }
}

async fn a_completed_upload_goes_once_its_asset_is_elsewhere(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    for upload in [&note, &reel] {
        ann.complete(upload).await.created();
    }
    app.advance(TimeDelta::hours(1));
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
    let key = promote(&app, &ann, &note).await;
    assert_eq!(counts(&app.pass(PASS).await), (1, 1, 0, 0));
    assert!(app.store.read(&key).await == note.bytes);
    assert_eq!(app.store.objects().await.len(), 2, "the asset of one, the upload of the other");
    promote(&app, &ann, &reel).await;
    let report = app.pass(PASS).await;
    assert_eq!(counts(&report), (1, 1, 0, 0));
    assert_eq!(report.details()["moved"], 1);
    assert_eq!(app.usage(&ann.tenant).await.bytes, 10 + 6 * MIB as i64, "the assets are still the tenant's");
    assert_eq!(
        ann.history(&note).await,
        ["initiate", "open", "complete", "asset.ready", "storage.discard_failed", "storage.clear"]
    );
    assert_eq!(counts(&app.pass(PASS).await), (0, 0, 0, 0));
}

async fn rows_past_their_time_leave_a_tombstone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let gone = left_behind(&app, &ann).await;
    assert_eq!(counts(&now(&app).await), (1, 1, 0, 0));
    app.advance(TimeDelta::days(89));
    let note = ann.initiate("note.txt", 10).await;
    ann.cancel(&note).await.ok();
    assert_eq!(now(&app).await.details(), json!({"cleared": 1, "moved": 0, "rows_deleted": 0, "tombstones_pruned": 0}));
    app.advance(TimeDelta::days(2));
    let session = upload_session::Entity::find().all(&app.database.rows).await.unwrap();
    let session = session.into_iter().find(|session| session.id.to_string() == gone.id).unwrap();
    let report = app.dry_pass(PASS, None).await;
    assert_eq!(report.details()["rows_deleted"], 1);

    // Nobody is deleted whose events have no place in the order of all yet.
    feed::sequence(&app.engine().await).await.unwrap();
    let report = now(&app).await;
    assert_eq!(counts(&report), (1, 1, 0, 0));
    assert_eq!(report.details(), json!({"cleared": 0, "moved": 0, "rows_deleted": 1, "tombstones_pruned": 0}));
    ann.session(&gone).await.is_problem(404, "not-found");
    assert_eq!(ann.status(&note).await, "CANCELLED");

    let tombstones = upload_tombstone::Entity::find().all(&app.database.rows).await.unwrap();
    let [stone] = tombstones.as_slice() else { panic!("{tombstones:?}") };
    assert_eq!(stone.upload_session_id, session.id);
    assert_eq!((stone.event_seq, &stone.chain_head), (5, &session.chain_head));
    assert_eq!(stone.positions.as_array().unwrap().len(), 5);
    let left = upload_event::Entity::find().all(&app.database.rows).await.unwrap();
    assert!(left.iter().all(|event| event.upload_session_id != session.id));
    assert_eq!(now(&app).await.done, 0);
}

async fn killed_in_the_middle_the_next_run_goes_on(app: TestApp) {
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let mut files = Vec::new();
    for _ in 0..5 {
        files.push(left_behind(&app, &ann).await);
    }
    for (op, has_done) in
        [(Op::AbortMultipartUpload, false), (Op::AbortMultipartUpload, true), (Op::DeleteObject, true)]
    {
        let faults = app.store.faults();
        let held = if has_done { faults.hold_answer(op) } else { faults.hold_request(op) };
        let mut pass = app.pass_to_kill("cleanup");
        held.arrived().await;
        pass.kill().await.unwrap();
    }
    now(&app).await;
    must_be_empty(&app).await;
    for file in &files {
        assert_eq!(ann.history(file).await, ["initiate", "open", "cancel", "storage.discard_failed", "storage.clear"]);
    }
    let usage = app.usage(&ann.tenant).await;
    assert_eq!((usage.live_sessions, usage.bytes), (0, 0));
}

async fn killed_while_it_deletes_rows_the_next_run_goes_on(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_LIFECYCLE__BATCH_ROWS", "1")]).await;
    let deleted = async || upload_tombstone::Entity::find().count(&app.database.rows).await.unwrap();
    // On a busy machine the pass may be through before it is killed.
    let mut sessions = 0;
    loop {
        sessions += past_their_time(&app).await;
        let before = deleted().await;
        let mut pass = app.pass_to_kill("cleanup");
        let begins = async {
            while deleted().await == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), begins).await.expect("it begins");
        pass.kill().await.unwrap();
        if deleted().await < sessions {
            break;
        }
        assert!(sessions < 1_500, "it is killed in the middle");
    }
    let left = upload_session::Entity::find().count(&app.database.rows).await.unwrap();
    assert_eq!(deleted().await + left, sessions, "each is there, or was deleted whole");
    assert_eq!(counts(&now(&app).await), (left, left, 0, 0));
    assert_eq!(deleted().await, sessions);
    assert_eq!(upload_event::Entity::find().count(&app.database.rows).await.unwrap(), 0);
}

/// Makes some sessions whose rows the next cleanup is to delete, also one in another process, which goes by the wall clock.
async fn past_their_time(app: &TestApp) -> u64 {
    const SESSIONS: u64 = 150;
    let ann = app.tenant("acme").user("ann");
    app.advance(-TimeDelta::days(100));
    for number in 0..SESSIONS {
        let file = ann.initiate(&number.to_string(), 1).await;
        ann.cancel(&file).await.ok();
    }
    assert_eq!(now(app).await.done, SESSIONS);
    feed::sequence(&app.engine().await).await.unwrap();
    app.advance(TimeDelta::days(100));
    SESSIONS
}
