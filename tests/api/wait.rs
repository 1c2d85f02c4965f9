//! A long poll for one session: it answers as soon as it is so.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kit::{Actor, MIB, Reply, TestApp, Upload, stories};
use crate::promote::promoted;

stories![
    it_answers_when_the_upload_is_over,
    it_answers_at_once_where_it_is_over_already,
    it_answers_when_the_time_is_over,
    it_waits_for_the_asset_too,
    many_wait_for_one,
    what_is_asked_for_is_checked,
];

async fn wait(ann: &Actor, upload: &Upload, query: &str) -> Reply {
    ann.get(&format!("/app/uploads/{}/wait?{query}", upload.id)).await
}

fn begin(ann: &Actor, upload: &Upload, query: &'static str) -> tokio::task::JoinHandle<(Value, Duration)> {
    let (ann, upload) = (ann.clone(), upload.clone());
    tokio::spawn(async move {
        let started = Instant::now();
        let answer = wait(&ann, &upload, query).await.ok();
        (answer, started.elapsed())
    })
}

async fn it_answers_when_the_upload_is_over(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    let waiting = begin(&ann, &note, "timeout=60");
    let asset = ann.complete(&note).await.created();
    let (answer, took) = waiting.await.unwrap();
    assert_eq!((&answer["satisfied"], &answer["status"]), (&json!(true), &json!("COMPLETED")));
    assert_eq!(answer["asset"], asset);
    assert_eq!(answer["asset_id"], asset["asset_id"]);
    assert!(took < Duration::from_secs(10), "{took:?}");

    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    let waiting = [begin(&ann, &reel, "timeout=60"), begin(&ann, &reel, "timeout=60&for=ready")];
    ann.cancel(&reel).await.ok();
    for waiting in waiting {
        let (answer, _) = waiting.await.unwrap();
        assert_eq!((&answer["satisfied"], &answer["status"]), (&json!(true), &json!("CANCELLED")));
        assert_eq!(answer["asset"], Value::Null);
    }
}

async fn it_answers_at_once_where_it_is_over_already(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    ann.cancel(&note).await.ok();
    let mut answer = wait(&ann, &note, "").await.ok();
    assert_eq!(answer["satisfied"], true);
    let members = answer.as_object_mut().unwrap();
    members.remove("satisfied");
    members.remove("asset");
    assert_eq!(answer, ann.session(&note).await.ok(), "beside these it is the session");
}

async fn it_answers_when_the_time_is_over(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    for (query, least, most) in [("timeout=0", 0, 1_000), ("timeout=1", 900, 3_000)] {
        let started = Instant::now();
        let answer = wait(&ann, &note, query).await.ok();
        let took = started.elapsed();
        assert_eq!((&answer["satisfied"], &answer["status"]), (&json!(false), &json!("UPLOADING")));
        assert!((Duration::from_millis(least)..Duration::from_millis(most)).contains(&took), "{query}: {took:?}");
    }
}

async fn it_waits_for_the_asset_too(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for status in ["READY", "FAILED"] {
        let note = ann.initiate("note.txt", 10).await;
        assert_eq!(ann.send(&note).await, 200);
        ann.complete(&note).await.created();
        assert_eq!(wait(&ann, &note, "for=terminal").await.ok()["satisfied"], true);
        let answer = wait(&ann, &note, "for=ready&timeout=0").await.ok();
        assert_eq!((&answer["satisfied"], &answer["asset"]["status"]), (&json!(false), &json!("UPLOADED")));

        // Somebody may still overwrite the object: its asset will never be ready.
        if status == "FAILED" {
            assert_eq!(ann.send_to(&note.session, b"other byte".to_vec()).await, 200);
        }
        let waiting = begin(&ann, &note, "for=ready&timeout=60");
        promoted(&app, &ann, &note).await.unwrap();
        let (answer, took) = waiting.await.unwrap();
        assert_eq!((&answer["satisfied"], &answer["asset"]["status"]), (&json!(true), &json!(status)));
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

async fn many_wait_for_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    let other = ann.initiate("other.txt", 10).await;
    let waiting: Vec<_> = (0..20).map(|_| begin(&ann, &note, "timeout=60")).collect();
    let else_waiting = begin(&ann, &other, "timeout=2");
    ann.cancel(&note).await.ok();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().0["satisfied"], true);
    }
    assert_eq!(else_waiting.await.unwrap().0["satisfied"], false);
}

async fn what_is_asked_for_is_checked(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    for (query, pointer, code) in [
        ("for=ever", "?for", "invalid-format"),
        ("timeout=61", "?timeout", "out-of-range"),
        ("timeout=-1", "?timeout", "out-of-range"),
        ("timeout=soon", "?timeout", "wrong-type"),
        ("until=terminal", "?until", "unknown-field"),
    ] {
        wait(&ann, &note, query).await.is_invalid(&[(pointer, code)]);
    }
    for stranger in [app.tenant("globex").user("ann"), app.tenant("acme").user("bob").permissions(&["uploads.view"])] {
        wait(&stranger, &note, "timeout=60").await.is_problem(404, "not-found");
    }
}
