//! The store or the database is away, slow or ill: 503 with Retry-After, and the same request works once it is back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kit::{Actor, Fault, MIB, Op, Reply, TestApp, Upload, stories};

stories![
    a_store_that_answers_badly_is_asked_again_later,
    a_store_that_hangs_holds_nobody_up,
    a_passing_fault_of_the_store_is_not_noticed,
    opening_goes_on_where_it_was_cut,
    a_session_never_opened_twice_in_the_store,
    the_database_goes_away_and_comes_back,
];

async fn initiate(ann: &Actor) -> Reply {
    ann.initiate_with_key("key", &json!({"file_name": "reel.mov", "file_size": 6 * MIB})).await
}

async fn a_store_that_answers_badly_is_asked_again_later(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = Upload::new(initiate(&ann).await.created());
    ann.send_all_parts(&reel).await;
    for fault in [
        Fault::Answer(500, "InternalError"),
        Fault::Answer(503, "SlowDown"),
        Fault::Answer(503, "ServiceUnavailable"),
        Fault::Answer(403, "AccessDenied"),
        Fault::DropRequest,
        Fault::DropAnswer,
    ] {
        app.store.faults().order(Op::ListParts, fault.clone());
        ann.resume(&reel).await.is_problem(503, "storage-unavailable");
        ann.complete(&reel).await.is_problem(503, "storage-unavailable");
        assert_eq!(ann.status(&reel).await, "UPLOADING", "after {fault:?}");
        app.store.heal();
        assert_eq!(ann.resume(&reel).await.ok()["uploaded_bytes"], 6 * MIB);
    }
    // A complete that the store refuses for now leaves the parts where they are.
    app.store.faults().order(Op::CompleteMultipartUpload, Fault::Answer(500, "InternalError"));
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    ann.complete(&reel).await.created();
}

async fn a_store_that_hangs_holds_nobody_up(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = Upload::new(initiate(&ann).await.created());
    ann.send_all_parts(&reel).await;
    for op in [Op::ListParts, Op::CompleteMultipartUpload, Op::HeadObject] {
        app.store.faults().order(op, Fault::Hang);
        let started = Instant::now();
        ann.complete(&reel).await.is_problem(503, "storage-unavailable");
        assert!(started.elapsed() < Duration::from_secs(15), "{op:?}: {:?}", started.elapsed());
        app.store.heal();
    }
    ann.complete(&reel).await.created();
}

async fn a_passing_fault_of_the_store_is_not_noticed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = Upload::new(initiate(&ann).await.created());
    ann.send_all_parts(&reel).await;
    // Calls that may be repeated are, once (the tests' `max_attempts` is 2).
    app.store.faults().order_once(Op::ListParts, Fault::Answer(503, "SlowDown"));
    app.store.faults().order_once(Op::HeadObject, Fault::DropAnswer);
    ann.complete(&reel).await.created();
    assert_eq!(app.store.faults().calls(Op::ListParts), 2);
}

async fn opening_goes_on_where_it_was_cut(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for (fault, opened) in [
        (Fault::DropAnswer, 1),
        (Fault::CutAnswer, 1),
        (Fault::DropRequest, 0),
        (Fault::Answer(500, "InternalError"), 0),
    ] {
        let key = format!("{fault:?}");
        let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB});
        let before = app.store.uploads().await.len();
        app.store.faults().order(Op::CreateMultipartUpload, fault);
        ann.initiate_with_key(&key, &body).await.is_problem(503, "storage-unavailable");
        app.store.heal();
        assert_eq!(app.store.uploads().await.len(), before + opened, "{key}");

        let initiating = ann.list("status=INITIATING").await.ok();
        let waiting = initiating["data"].as_array().unwrap();
        assert_eq!(waiting.len(), 1, "{key}: {initiating}");
        assert_eq!(waiting[0]["multipart_upload_id"], Value::Null);
        let stuck = ann.resume(&Upload::new(waiting[0].clone())).await.ok();
        assert_eq!((&stuck["can_resume"], &stuck["status"]), (&json!(false), &json!("INITIATING")));

        let reel = Upload::new(ann.initiate_with_key(&key, &body).await.ok());
        assert_eq!(reel.session["status"], "UPLOADING");
        assert_eq!(json!(reel.id), waiting[0]["upload_session_id"]);
        assert_eq!(app.store.uploads().await.len(), before + 1, "{key}: one upload comes of it");
        ann.send_all_parts(&reel).await;
        ann.complete(&reel).await.created();
    }
}

async fn a_session_never_opened_twice_in_the_store(app: TestApp) {
    // CreateMultipartUpload is not idempotent: a second attempt by itself would leave an upload that nobody knows.
    let ann = app.tenant("acme").user("ann");
    app.store.faults().drop_answers(Op::CreateMultipartUpload);
    initiate(&ann).await.is_problem(503, "storage-unavailable");
    assert_eq!(app.store.faults().calls(Op::CreateMultipartUpload), 1);
    assert_eq!(app.store.uploads().await.len(), 1);
}

async fn the_database_goes_away_and_comes_back(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = Upload::new(initiate(&ann).await.created());
    ann.send_all_parts(&reel).await;
    app.database.cut().await;
    initiate_new(&ann).await.is_problem(503, "database-unavailable");
    ann.complete(&reel).await.is_problem(503, "database-unavailable");
    ann.cancel(&reel).await.is_problem(503, "database-unavailable");
    app.database.heal().await;
    assert_eq!(ann.status(&reel).await, "UPLOADING");
    ann.complete(&reel).await.created();
    initiate_new(&ann).await.created();
}

async fn initiate_new(ann: &Actor) -> Reply {
    ann.initiate_with_key("new", &json!({"file_name": "note.txt", "file_size": 10})).await
}
