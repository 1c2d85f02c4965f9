//! What lies in the store and nothing explains is removed; what lives, what is young and what is not ours is left alone.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use quaymaster::deployment;
use quaymaster::engine::Engine;
use quaymaster::error::Error;
use quaymaster::pass::{self, Options, Pass, Report, Run};
use quaymaster::session::orphans;
use quaymaster::work;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::kit::{Actor, By, CHUNK, Fault, MIB, OWNER, Op, TestApp, Upload, stories};
use crate::promote::{completed, promoted};

stories![
    what_nothing_explains_is_removed,
    what_lives_is_left_alone,
    what_is_young_by_the_stores_clock_is_left_alone,
    a_date_that_is_a_day_ahead_makes_nothing_old,
    a_dry_run_changes_nothing,
    what_is_not_ours_is_counted_and_left_alone,
    what_the_cleanup_has_still_to_do_is_left_to_it,
    what_came_after_the_cleanup_is_removed,
    an_upload_that_lost_the_race_to_open_is_removed,
    an_upload_that_is_being_opened_is_left_alone,
    a_session_that_opens_after_the_listing_is_left_alone,
    a_row_is_read_again_before_anything_is_removed,
    copies_are_explained_until_the_asset_is_ready,
    a_store_that_lies_is_left_and_the_others_are_seen_to,
    a_store_that_is_away_is_left_to_the_next_run,
    a_bucket_that_only_a_session_still_names_is_seen_to,
    an_object_that_cannot_be_removed_stops_no_other,
    a_run_ends_when_its_time_is_up,
    a_run_begins_where_the_last_one_ended,
    killed_in_the_middle_the_next_run_goes_on,
    a_bucket_of_another_deployment_is_not_touched,
    a_bucket_is_marked_at_the_start_and_once,
    a_bucket_that_was_away_at_the_start_is_marked_by_the_first_pass,
];

fn key_of(id: &str) -> String {
    format!("temp/uploads/{id}/original")
}

/// A key of our form that belongs to nobody.
fn nobodys() -> String {
    key_of(&Uuid::now_v7().to_string())
}

fn at_once() -> Options {
    Options { older_than: Some(TimeDelta::zero()), ..Options::default() }
}

fn a_run(options: Options) -> Run {
    Run::new(options, By::System, Duration::from_secs(60), CancellationToken::new())
}

async fn run(app: &TestApp, options: Options) -> Report {
    orphans(&app.engine().await, &a_run(options)).await.unwrap()
}

/// found, done, failed, skipped
fn counts(report: &Report) -> [u64; 4] {
    [report.found, report.done, report.failed, report.skipped]
}

/// A proxy on the way may write a `Date` of its own.
async fn a_date_that_is_a_day_ahead_makes_nothing_old(app: TestApp) {
    app.store.put(&nobodys(), b"young").await;
    app.store.open(&nobodys()).await;
    let date = (Utc::now() + TimeDelta::hours(25)).to_rfc2822();
    for op in [Op::ListObjects, Op::ListMultipartUploads] {
        app.store.faults().order(op, Fault::Header("date", date.clone()));
    }
    assert_eq!(counts(&run(&app, Options::default()).await), [0, 0, 0, 2]);
    app.store.heal();
    assert_eq!(run(&app, at_once()).await.done, 2);
}

async fn what_nothing_explains_is_removed(app: TestApp) {
    let (object, upload) = (nobodys(), nobodys());
    app.store.put(&object, b"nobody's").await;
    app.store.open(&upload).await;
    app.store.open(&upload).await;
    app.store.open(&format!("assets/{}/{}/original", Uuid::now_v7(), Uuid::now_v7())).await;
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [4, 4, 0, 0], "{report:?}");
    let details = report.details();
    assert_eq!((&details["foreign"], &details["examples"]), (&json!(0), &json!([])));
    let (object, upload) = (format!("{}/{object}", app.store.bucket), format!("{}/{upload}", app.store.bucket));
    let named = |key: &str| details["orphans"].as_array().unwrap().iter().filter(|orphan| *orphan == key).count();
    assert_eq!((named(&object), named(&upload)), (1, 2), "{details}");
    let actions = app.operator("ola").get("/admin/actions").await.ok();
    let removed: Vec<_> =
        actions["data"].as_array().unwrap().iter().filter(|act| act["action"] == "orphans.remove").collect();
    let keys = removed.iter().flat_map(|act| act["details"]["object_keys"].as_array().unwrap());
    assert_eq!(keys.count(), 4, "{actions}");
    assert!(removed.iter().all(|act| act["actor"] == "system" && act["details"]["bucket"] == app.store.bucket));
    assert!(app.store.objects().await.is_empty());
    assert!(app.store.uploads().await.is_empty());
    assert_eq!(counts(&run(&app, at_once()).await), [0; 4]);
}

async fn what_lives_is_left_alone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    let assembled = ann.initiate("film.mov", 6 * MIB).await;
    ann.send_all_parts(&assembled).await;
    app.store.faults().order_once(Op::HeadObject, Fault::Answer(403, "AccessDenied"));
    ann.complete(&assembled).await.is_problem(503, "storage-unavailable");
    let (uploaded, _) = completed(&ann, "photo.png", 10).await;
    let (failed, _) = completed(&ann, "lost.png", 10).await;
    assert_eq!(ann.send_to(&failed.session, vec![1; 10]).await, 200);
    promoted(&app, &ann, &failed).await.unwrap();
    let (ready, _) = completed(&ann, "ready.png", 10).await;
    promoted(&app, &ann, &ready).await.unwrap();

    let before = (app.store.objects().await, app.store.uploads().await);
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [0; 4], "{report:?}");
    assert_eq!((app.store.objects().await, app.store.uploads().await), before);

    ann.put_part(&reel, 2).await;
    for upload in [&reel, &note, &assembled] {
        ann.complete(upload).await.created();
    }
    promoted(&app, &ann, &uploaded).await.unwrap();
}

async fn what_is_young_by_the_stores_clock_is_left_alone(app: TestApp) {
    let (object, upload) = (nobodys(), nobodys());
    app.store.put(&object, b"nobody's").await;
    let id = app.store.open(&upload).await;
    // This server's clock has no say in it.
    app.advance(TimeDelta::days(30));
    let report = run(&app, Options::default()).await;
    assert_eq!(counts(&report), [0, 0, 0, 2], "{report:?}");
    app.advance(-TimeDelta::days(60));
    assert_eq!(counts(&run(&app, Options::default()).await), [0, 0, 0, 2]);
    app.advance(TimeDelta::days(30));
    assert_eq!(app.store.uploads().await, [(upload, id)]);
    assert_eq!(counts(&run(&app, at_once()).await), [2, 2, 0, 0]);
}

async fn a_dry_run_changes_nothing(app: TestApp) {
    let object = nobodys();
    app.store.put(&object, b"nobody's").await;
    app.store.open(&object).await;
    app.store.delete(OWNER).await;
    let report = run(&app, Options { dry_run: true, ..at_once() }).await;
    assert_eq!(counts(&report), [2, 0, 0, 0], "{report:?}");
    assert_eq!(app.store.everything().await, [(object, 8)], "and no marker");
    assert_eq!(counts(&run(&app, at_once()).await), [2, 2, 0, 0]);
}

async fn what_is_not_ours_is_counted_and_left_alone(app: TestApp) {
    let id = Uuid::now_v7();
    let inside = [
        "temp/uploads/readme.txt".to_owned(),
        "temp/uploads/a b+c%20/größe 📦".to_owned(),
        format!("temp/uploads/{id}/thumbnail"),
        format!("temp/uploads/{}/original", id.to_string().to_uppercase()),
    ];
    let beside = ["backup/2026/db.dump", "backup/2025/db.dump", "temp/cache/x", "root.txt"].map(str::to_owned);
    for key in inside.iter().chain(&beside) {
        app.store.put(key, b"theirs").await;
    }
    app.store.put(&format!("assets/{id}/{id}/derived"), b"theirs").await;
    let uploads = ["temp/uploads/archive.zip".to_owned(), format!("assets/{id}/{id}/poster")];
    for key in &uploads {
        app.store.open(key).await;
    }
    let before = (app.store.objects().await, app.store.uploads().await);
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [0; 4], "{report:?}");
    assert_eq!((app.store.objects().await, app.store.uploads().await), before);

    // Two below one folder count as that folder; what lies below assets/ is not looked at but for uploads.
    let details = report.details();
    assert_eq!(details["foreign"], json!(inside.len() + 3 + uploads.len()), "{details}");
    let examples: Vec<&str> = details["examples"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let bucket = &app.store.bucket;
    for key in inside.iter().chain(&uploads).map(String::as_str).chain(["backup/", "temp/cache/", "root.txt"]) {
        assert!(examples.contains(&format!("{bucket}/{key}").as_str()), "{key} in {examples:?}");
    }
    for (key, _) in app.store.objects().await {
        app.store.delete(&key).await;
    }
    for (key, id) in app.store.uploads().await {
        app.store.abort(&key, &id).await;
    }
}

/// A cancelled session under whose key the store holds an object and an upload.
async fn left_behind(app: &TestApp, ann: &Actor) -> Upload {
    app.expect_leftovers();
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    assert_eq!(ann.cancel(&reel).await.ok()["status"], "CANCELLED");
    // In this order: an object that comes takes the uploads under its key away, in Garage.
    app.store.put(&reel.key(), b"late").await;
    app.store.open(&reel.key()).await;
    reel
}

/// As the cleanup records it, but for the bytes that it releases.
async fn set_cleared(app: &TestApp, upload: &Upload, cleared: bool) {
    let value = if cleared { "cancelled_at" } else { "NULL" };
    // Only one session of a story is cancelled.
    let sql = format!("UPDATE upload_session SET storage_cleared_at = {value} WHERE status = 'CANCELLED'");
    assert_eq!(app.database.rows.execute_unprepared(&sql).await.unwrap().rows_affected(), 1, "{}", upload.id);
}

async fn what_the_cleanup_has_still_to_do_is_left_to_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    left_behind(&app, &ann).await;
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [0, 0, 0, 2], "{report:?}");
    assert_eq!((app.store.objects().await.len(), app.store.uploads().await.len()), (1, 1));
}

async fn what_came_after_the_cleanup_is_removed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = left_behind(&app, &ann).await;
    set_cleared(&app, &reel, true).await;
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [2, 2, 0, 0], "{report:?}");
    assert_eq!((app.store.objects().await.len(), app.store.uploads().await.len()), (0, 0));
    set_cleared(&app, &reel, false).await;
}

async fn an_upload_that_lost_the_race_to_open_is_removed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    app.store.open(&reel.key()).await;
    app.store.open(&reel.key()).await;
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [2, 2, 0, 0], "{report:?}");
    assert_eq!(app.store.uploads().await, [(reel.key(), reel.upload_id().to_owned())]);
    let removed = "storage.remove_orphan";
    assert_eq!(ann.history(&reel).await, ["initiate", "open", removed, removed], "what was done is in the record");
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
}

async fn an_upload_that_is_being_opened_is_left_alone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    // The store has opened it, and nobody has heard of that yet.
    let held = app.store.faults().hold_answer(Op::CreateMultipartUpload);
    let opening = {
        let ann = ann.clone();
        tokio::spawn(async move { ann.initiate("reel.mov", 6 * MIB).await })
    };
    held.arrived().await;
    assert_eq!(app.store.uploads().await.len(), 1);
    assert_eq!(counts(&run(&app, at_once()).await), [0; 4]);
    held.release();
    let reel = opening.await.unwrap();
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
}

async fn a_session_that_opens_after_the_listing_is_left_alone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.store.open(&nobodys()).await;
    for op in [Op::ListMultipartUploads, Op::ListObjects] {
        // The store has listed, and the rows are not read yet: what is opened now is in neither, or in both.
        let held = app.store.faults().hold_answer(op);
        let running = {
            let engine = app.engine().await;
            tokio::spawn(async move { orphans(&engine, &a_run(at_once())).await.unwrap() })
        };
        held.arrived().await;
        let reel = ann.initiate("reel.mov", 6 * MIB).await;
        let note = ann.initiate("note.txt", 10).await;
        assert_eq!(ann.send(&note).await, 200);
        ann.put_part(&reel, 1).await;
        held.release();
        let report = running.await.unwrap();
        assert_eq!(report.failed, 0, "{report:?}");
        assert_eq!(report.found, u64::from(op == Op::ListMultipartUploads), "{report:?}");
        ann.put_part(&reel, 2).await;
        ann.complete(&reel).await.created();
        ann.complete(&note).await.created();
    }
}

async fn a_row_is_read_again_before_anything_is_removed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = left_behind(&app, &ann).await;
    let (_, upload_id) = app.store.uploads().await.remove(0);
    app.store.abort(&reel.key(), &upload_id).await;
    set_cleared(&app, &reel, true).await;
    // Listed before it, and so removed before it.
    app.store.put(&key_of("00000000-0000-7000-8000-000000000000"), b"nobody's").await;
    let held = app.store.faults().hold_request(Op::DeleteObject);
    let running = {
        let engine = app.engine().await;
        tokio::spawn(async move { orphans(&engine, &a_run(at_once())).await.unwrap() })
    };
    held.arrived().await;
    set_cleared(&app, &reel, false).await;
    held.release();
    let report = running.await.unwrap();
    assert_eq!(counts(&report), [2, 1, 0, 1], "{report:?}");
    assert_eq!(app.store.objects().await, [(reel.key(), 4)]);
}

async fn copies_are_explained_until_the_asset_is_ready(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = completed(&ann, "film.mov", 10).await;
    let target = format!("assets/{}/{id}/original", ann.tenant.id);
    let cut_short = app.store.open(&target).await;
    assert_eq!(counts(&run(&app, at_once()).await), [0; 4]);
    app.store.abort(&target, &cut_short).await;
    promoted(&app, &ann, &upload).await.unwrap();
    let left = app.store.open(&target).await;
    app.store.faults().order(Op::AbortMultipartUpload, Fault::Answer(403, "AccessDenied"));
    assert_eq!(counts(&run(&app, at_once()).await), [1, 0, 1, 0]);
    app.store.heal();
    assert_eq!(counts(&run(&app, at_once()).await), [1, 1, 0, 0]);
    let events = ann.get(&format!("/app/uploads/{}/events", upload.id)).await.ok();
    let events = events["data"].as_array().unwrap();
    let [.., refused, removed] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&refused["event"], &refused["actor"]), (&json!("storage.remove_orphan_failed"), &json!("system")));
    let mut about = json!({"bucket": app.store.bucket, "object_key": target, "upload_id": left});
    assert_eq!((&removed["event"], &removed["details"]), (&json!("storage.remove_orphan"), &about));
    about["cause"] = json!("AbortMultipart failed: Refused (AccessDenied)");
    assert_eq!(refused["details"], about);
    assert!(app.store.uploads().await.is_empty());
    assert!(app.store.read(&target).await == upload.bytes);
}

fn objects_page(keys: &[&str]) -> Fault {
    let entry =
        |key| format!("<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>");
    let entries: String = keys.iter().map(entry).collect();
    Fault::Say(format!("<ListBucketResult><IsTruncated>true</IsTruncated>{entries}</ListBucketResult>"))
}

fn uploads_page(ids: &[&str]) -> Fault {
    let key = key_of("00000000-0000-7000-8000-000000000000");
    let entry = |id| {
        let started = "<Initiated>2020-01-01T00:00:00.000Z</Initiated>";
        format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId>{started}</Upload>")
    };
    let entries: String = ids.iter().map(entry).collect();
    let page = format!("<IsTruncated>true</IsTruncated>{entries}");
    Fault::Say(format!("<ListMultipartUploadsResult>{page}</ListMultipartUploadsResult>"))
}

async fn a_store_that_lies_is_left_and_the_others_are_seen_to(app: TestApp) {
    // Before ours in the order of names.
    app.move_tenant("globex", Some("a-bucket-that-is-gone")).await;
    app.store.put(&nobodys(), b"nobody's").await;
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [1, 1, 1, 0], "{report:?}");
    let errors = report.details()["errors"].clone();
    assert!(errors["a-bucket-that-is-gone"].as_str().is_some_and(|error| !error.is_empty()), "{errors}");
    assert_eq!(errors.as_object().unwrap().len(), 1, "{errors}");
    app.move_tenant("globex", None).await;

    let key = key_of("00000000-0000-7000-8000-000000000000");
    for (op, lie) in [
        (Op::ListObjects, objects_page(&[])),
        (Op::ListObjects, objects_page(&[&key])),
        (Op::ListObjects, objects_page(&["temp/uploads/b", "temp/uploads/a"])),
        (Op::ListObjects, objects_page(&["assets/a"])),
        (Op::ListMultipartUploads, uploads_page(&[])),
        (Op::ListMultipartUploads, uploads_page(&["same"])),
        (Op::ListObjects, Fault::CutAnswer),
    ] {
        app.store.faults().order(op, lie.clone());
        let report = run(&app, at_once()).await;
        app.store.heal();
        assert_eq!(report.failed, 1, "{lie:?}: {report:?}");
        assert!(report.details()["errors"][&app.store.bucket].is_string(), "{lie:?}: {report:?}");
    }
}

async fn a_store_that_is_away_is_left_to_the_next_run(app: TestApp) {
    app.store.put(&nobodys(), b"nobody's").await;
    app.store.put(&nobodys(), b"nobody's").await;
    for op in [Op::GetObject, Op::ListMultipartUploads, Op::ListObjects, Op::DeleteObject] {
        app.store.faults().order(op, Fault::Answer(503, "SlowDown"));
        let report = run(&app, at_once()).await;
        assert_eq!((report.done, report.failed), (0, 1), "{op:?}: {report:?}");
        app.store.heal();
    }
    // The database is another matter: then there is no report.
    app.database.cut().await;
    let engine = app.engine().await;
    let outcome = orphans(&engine, &a_run(at_once())).await;
    app.database.heal().await;
    // On SQLite readers go on; but nothing is removed that cannot be recorded.
    assert!(matches!(outcome, Err(Error::DbUnavailable(_))), "{outcome:?}");
    assert_eq!(counts(&run(&app, at_once()).await), [2, 2, 0, 0]);
}

async fn a_bucket_that_only_a_session_still_names_is_seen_to(app: TestApp) {
    let elsewhere = [("STORAGE_PROVISION_STRATEGY", "dedicated"), ("AWS_BUCKET", "nobody-has-this-bucket")];
    app.restart_with(&elsewhere).await;
    app.move_tenant("acme", Some(&app.store.bucket)).await;
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    // The tenant moves away; what it has begun stays where it is.
    app.move_tenant("acme", Some("moved-away")).await;
    app.store.put(&nobodys(), b"nobody's").await;
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [1, 1, 1, 0], "{report:?}");
    let errors = report.details()["errors"].clone();
    let failed: Vec<&String> = errors.as_object().unwrap().keys().collect();
    assert_eq!(failed, ["moved-away"], "and the bucket that nobody uses is not asked for");
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
    app.move_tenant("acme", None).await;
}

async fn an_object_that_cannot_be_removed_stops_no_other(app: TestApp) {
    for _ in 0..3 {
        app.store.put(&nobodys(), b"nobody's").await;
    }
    app.store.faults().order_once(Op::DeleteObject, Fault::Answer(403, "AccessDenied"));
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [3, 2, 1, 0], "{report:?}");
    assert_eq!(report.details()["errors"].as_object().unwrap().len(), 1);
    assert_eq!(counts(&run(&app, at_once()).await), [1, 1, 0, 0]);
}

async fn a_run_ends_when_its_time_is_up(app: TestApp) {
    app.store.put(&nobodys(), b"nobody's").await;
    let engine = app.engine().await;
    let stop = CancellationToken::new();
    stop.cancel();
    for over in [
        Run::new(at_once(), By::System, Duration::ZERO, CancellationToken::new()),
        Run::new(at_once(), By::System, Duration::from_secs(60), stop),
    ] {
        let report = orphans(&engine, &over).await.unwrap();
        assert_eq!(counts(&report), [0; 4]);
        assert_eq!(report.details()["unfinished"], json!(true));
    }
    assert_eq!(counts(&run(&app, at_once()).await), [1, 1, 0, 0]);
}

async fn a_run_begins_where_the_last_one_ended(app: TestApp) {
    let one_by_one = ("QUAYMASTER_LIFECYCLE__CONCURRENCY", "1");
    let dedicated = ("STORAGE_PROVISION_STRATEGY", "dedicated");
    app.restart_with(&[dedicated, ("AWS_BUCKET", "nobody-has-this-bucket"), one_by_one]).await;
    app.move_tenant("acme", Some(&app.store.bucket)).await;
    app.move_tenant("globex", Some("zzz-not-there")).await;
    let engine = app.engine().await;
    let pass = async |stop: &CancellationToken| {
        let run = pass::run(&engine, work::pass, Pass::Orphans, at_once(), &By::System, None, stop).await.unwrap();
        (run.found, run.done, run.failed, run.details)
    };
    let (stop, held) = (CancellationToken::new(), app.store.faults().hold_answer(Op::ListMultipartUploads));
    let (cut, ()) = futures_util::future::join(pass(&stop), async {
        held.arrived().await;
        stop.cancel();
        held.release();
    })
    .await;
    // Time was up in the one bucket, so the other has its turn first.
    assert_eq!(cut.3["next_bucket"], "zzz-not-there");
    assert_eq!(pass(&stop).await.3["next_bucket"], "zzz-not-there");
    app.store.put(&nobodys(), b"nobody's").await;
    let (found, done, failed, details) = pass(&CancellationToken::new()).await;
    assert_eq!((found, done, failed, details.get("next_bucket")), (1, 1, 1, None), "{details}");
    for slug in ["acme", "globex"] {
        app.move_tenant(slug, None).await;
    }
}

async fn killed_in_the_middle_the_next_run_goes_on(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    for _ in 0..3 {
        app.store.put(&nobodys(), b"nobody's").await;
        app.store.open(&nobodys()).await;
    }
    for (op, has_done) in
        [(Op::AbortMultipartUpload, false), (Op::AbortMultipartUpload, true), (Op::DeleteObject, true)]
    {
        let faults = app.store.faults();
        let held = if has_done { faults.hold_answer(op) } else { faults.hold_request(op) };
        let mut pass = app.pass_to_kill("orphans");
        held.arrived().await;
        pass.kill().await.unwrap();
    }
    let report = run(&app, at_once()).await;
    assert_eq!(counts(&report), [2, 2, 0, 0], "three uploads and an object are gone: {report:?}");
    assert_eq!(app.store.uploads().await, [(reel.key(), reel.upload_id().to_owned())]);
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
}

async fn a_bucket_of_another_deployment_is_not_touched(app: TestApp) {
    let object = nobodys();
    app.store.put(&object, b"nobody's").await;
    let theirs = Uuid::now_v7().to_string();
    for (marker, owner) in
        [(json!({"deployment_id": theirs}).to_string(), theirs.as_str()), ("not JSON".to_owned(), "cannot be read")]
    {
        app.store.put(OWNER, marker.as_bytes()).await;
        for dry_run in [false, true] {
            let report = run(&app, Options { dry_run, ..at_once() }).await;
            assert_eq!(counts(&report), [0, 0, 1, 0], "{report:?}");
            let error = report.details()["errors"][&app.store.bucket].as_str().unwrap().to_owned();
            assert!(error.contains(&app.store.bucket) && error.contains(owner), "{error}");
        }
        let refused = deployment::must_own(&app.engine().await, &app.store.bucket).await.unwrap_err();
        assert!(matches!(&refused, Error::ForeignBucket { bucket, .. } if *bucket == app.store.bucket), "{refused}");
        // A start does not take it over either.
        app.restart_with(&[]).await;
        assert_eq!(app.store.read(OWNER).await, marker.as_bytes());
    }
    app.store.delete(OWNER).await;
    assert_eq!(counts(&run(&app, at_once()).await), [1, 1, 0, 0]);
}

async fn marker(app: &TestApp) -> Value {
    serde_json::from_slice(&app.store.read(OWNER).await).unwrap()
}

async fn a_bucket_is_marked_at_the_start_and_once(app: TestApp) {
    let engine = app.engine().await;
    let expected = json!({"deployment_id": deployment::id(&engine).await.unwrap()});
    assert_eq!(marker(&app).await, expected);
    app.restart_with(&[]).await;
    assert_eq!(marker(&app).await, expected);
    let puts = app.store.faults().calls(Op::PutObject);
    let engine = app.engine().await;
    deployment::must_own(&engine, &app.store.bucket).await.unwrap();
    assert_eq!(app.store.faults().calls(Op::PutObject), puts);

    // A store that lacks the condition is asked without it.
    app.store.delete(OWNER).await;
    app.store.faults().order_once(Op::PutObject, Fault::Answer(501, "NotImplemented"));
    deployment::must_own(&engine, &app.store.bucket).await.unwrap();
    assert_eq!(marker(&app).await, expected);

    // Many at once agree.
    app.store.delete(OWNER).await;
    let claim = |engine: Engine| {
        let bucket = app.store.bucket.clone();
        async move { deployment::must_own(&engine, &bucket).await }
    };
    let claims = futures_util::future::join_all((0..4).map(|_| claim(engine.clone()))).await;
    assert!(claims.iter().all(Result::is_ok), "{claims:?}");
}

async fn a_bucket_that_was_away_at_the_start_is_marked_by_the_first_pass(app: TestApp) {
    app.store.delete(OWNER).await;
    app.store.faults().order_all(Fault::Hang);
    app.restart_with(&[]).await;
    app.tenant("acme").user("ann").get("/app/brands").await.ok();
    app.store.heal();
    assert_eq!(app.store.everything().await, []);
    assert_eq!(counts(&run(&app, at_once()).await), [0; 4]);
    assert!(marker(&app).await["deployment_id"].is_string());
}
