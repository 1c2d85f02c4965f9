use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::kit::{CHUNK, MIB, Op, TestApp, stories};

stories![
    it_tells_what_the_store_holds,
    a_direct_session_gets_a_fresh_url,
    an_upload_that_the_store_lost_fails_the_session,
    a_whole_object_goes_straight_to_complete,
    an_ended_session_has_nothing_to_resume,
    an_expired_session_has_nothing_to_resume,
    it_counts_as_activity_once_a_minute,
    many_parts_come_on_several_pages,
];

async fn it_tells_what_the_store_holds(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK + 5).await;
    let fresh = ann.resume(&reel).await.ok();
    assert_eq!(fresh["can_resume"], true);
    assert_eq!(fresh["reason"], Value::Null);
    assert_eq!(fresh["uploaded_parts"], json!([]));
    assert_eq!(fresh["uploaded_bytes"], 0);
    for (field, value) in ann.session(&reel).await.ok().as_object().unwrap() {
        assert_eq!(&fresh[field], value, "{field}");
    }

    ann.put_part(&reel, 3).await;
    ann.put_part(&reel, 1).await;
    let later = ann.resume(&reel).await.ok();
    assert_eq!(later["uploaded_bytes"], CHUNK + 5);
    let parts = later["uploaded_parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2);
    for (part, (number, size)) in parts.iter().zip([(1, CHUNK), (3, 5)]) {
        assert_eq!(part["part_number"], number);
        assert_eq!(part["size"], size);
        assert_eq!(part["etag"].as_str().unwrap().len(), 32, "an MD5 without quotes: {part}");
    }

    ann.put_part(&reel, 2).await;
    assert_eq!(ann.resume(&reel).await.ok()["uploaded_bytes"], 2 * CHUNK + 5);
    ann.complete(&reel).await.created();
}

async fn a_direct_session_gets_a_fresh_url(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    let resumed = ann.resume(&note).await.ok();
    assert_eq!(resumed["can_resume"], true);
    assert_eq!(resumed["uploaded_bytes"], 0);
    assert_eq!(resumed["uploaded_parts"], json!([]));
    assert_eq!(ann.send_to(&resumed, note.bytes.clone()).await, 200);
    assert_eq!(ann.resume(&note).await.ok()["uploaded_bytes"], 10);
    ann.complete(&note).await.created();
}

async fn an_upload_that_the_store_lost_fails_the_session(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.put_part(&reel, 1).await;
    app.store.abort(&reel.key(), reel.upload_id()).await;
    let lost = ann.resume(&reel).await.ok();
    assert_eq!(lost["can_resume"], false);
    assert_eq!(lost["reason"], "storage_upload_lost");
    assert_eq!(lost["status"], "FAILED");
    assert_eq!(lost["failure_reason"], "storage_error");
    let again = ann.resume(&reel).await.ok();
    assert_eq!((&again["can_resume"], &again["reason"]), (&json!(false), &json!("terminal")));
}

async fn a_whole_object_goes_straight_to_complete(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", CHUNK + 1).await;
    ann.send_all_parts(&reel).await;
    app.store.faults().drop_answers(Op::CompleteMultipartUpload);
    app.store.faults().drop_answers(Op::HeadObject);
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.store.heal();

    let resumed = ann.resume(&reel).await.ok();
    assert_eq!(resumed["can_resume"], true);
    assert_eq!(resumed["uploaded_bytes"], CHUNK + 1);
    let parts = json!([
        {"part_number": 1, "etag": null, "size": CHUNK},
        {"part_number": 2, "etag": null, "size": 1},
    ]);
    assert_eq!(resumed["uploaded_parts"], parts);
    ann.complete(&reel).await.created();
}

async fn an_ended_session_has_nothing_to_resume(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for size in [10, 6 * MIB] {
        let file = ann.initiate("file.bin", size).await;
        ann.cancel(&file).await.ok();
        let resumed = ann.resume(&file).await.ok();
        assert_eq!(resumed["can_resume"], false);
        assert_eq!(resumed["reason"], "terminal");
        assert_eq!(resumed["uploaded_parts"], json!([]));
        assert_eq!(resumed["upload_url"], Value::Null);
    }
}

async fn an_expired_session_has_nothing_to_resume(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for size in [10, 6 * MIB] {
        let file = ann.initiate("file.bin", size).await;
        app.advance(TimeDelta::days(7));
        let resumed = ann.resume(&file).await.ok();
        assert_eq!(resumed["can_resume"], false);
        assert_eq!(resumed["reason"], "expired");
        assert_eq!(resumed["upload_url"], Value::Null);
    }
}

async fn it_counts_as_activity_once_a_minute(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    let time = |session: &Value, field: &str| session[field].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();

    app.advance(TimeDelta::seconds(50));
    let soon = ann.resume(&reel).await.ok();
    assert_eq!(soon["last_activity_at"], reel.session["last_activity_at"]);

    app.advance(TimeDelta::seconds(20));
    let later = ann.resume(&reel).await.ok();
    assert!(time(&later, "last_activity_at") - time(&reel.session, "last_activity_at") >= TimeDelta::seconds(70));
    assert!(time(&later, "expires_at") - time(&reel.session, "expires_at") >= TimeDelta::seconds(70));
    assert_eq!(later["version"], reel.session["version"]);
}

async fn many_parts_come_on_several_pages(app: TestApp) {
    // More than the 1,000 parts that S3 lists on a page, of sizes that nobody has to send: the kit's own key does.
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 1_005 * CHUNK).await;
    for first in (1..=1_005).step_by(50) {
        let put = |number: i32| {
            let part = app.store.s3.upload_part().bucket(&app.store.bucket).key(reel.key()).upload_id(reel.upload_id());
            part.part_number(number).body(vec![b'x'].into()).send()
        };
        for answer in futures_util::future::join_all((first..(first + 50).min(1_006)).map(put)).await {
            answer.unwrap();
        }
    }
    let resumed = ann.resume(&reel).await.ok();
    let numbers: Vec<u64> =
        resumed["uploaded_parts"].as_array().unwrap().iter().map(|p| p["part_number"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=1_005), "{} parts", numbers.len());
    assert_eq!(resumed["uploaded_bytes"], 1_005);
    // All of them have the wrong size: the answer names the first thousand.
    let problem = ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    assert_eq!(problem["missing_parts"].as_array().unwrap().len(), 1_000);
    ann.cancel(&reel).await.ok();
}
