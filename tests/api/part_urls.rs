use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::kit::{CHUNK, TestApp, stories};

stories![
    one_part_has_one_place,
    many_parts_come_in_the_order_asked_for,
    numbers_outside_the_plan_are_refused,
    a_direct_session_has_no_parts,
    an_ended_session_gets_no_urls,
    a_url_takes_its_own_part_only,
    urls_never_outlive_the_session,
    ten_thousand_come_at_once,
];

async fn one_part_has_one_place(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK + 9).await;
    for (number, offset, size) in [(1, 0, CHUNK), (2, CHUNK, CHUNK), (3, 2 * CHUNK, 9)] {
        let url = ann.part_url(&reel, number).await.ok();
        assert_eq!(url["part_number"], number);
        assert_eq!(url["offset"], offset);
        assert_eq!(url["size"], size);
        assert_eq!(url["upload_method"], "PUT");
        let expires: DateTime<Utc> = url["expires_at"].as_str().unwrap().parse().unwrap();
        let life = expires - Utc::now();
        assert!(life > TimeDelta::seconds(890) && life <= TimeDelta::seconds(900), "{life}");
    }
    assert_eq!(ann.session(&reel).await.ok()["updated_at"], reel.session["updated_at"], "no side effect");
}

async fn many_parts_come_in_the_order_asked_for(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 3 * CHUNK + 1).await;
    for (which, numbers) in [
        (json!({"from": 2, "to": 4}), vec![2, 3, 4]),
        (json!({"from": 3, "to": 3}), vec![3]),
        (json!({"part_numbers": [4, 1, 3]}), vec![4, 1, 3]),
    ] {
        let reply = ann.part_urls(&reel, &which).await;
        let urls = reply.ok();
        assert_eq!(reply.header("content-encoding"), "");
        assert_eq!(urls["multipart_upload_id"], reel.upload_id());
        let parts = urls["parts"].as_array().unwrap();
        assert_eq!(parts.iter().map(|p| p["part_number"].as_i64().unwrap()).collect::<Vec<_>>(), numbers);
        for part in parts {
            let number = usize::try_from(part["part_number"].as_u64().unwrap()).unwrap();
            assert_eq!(part["size"], reel.part(number).len());
            assert_eq!(ann.send_to(part, reel.part(number).to_vec()).await, 200);
        }
    }
    ann.put_part(&reel, 1).await;
    ann.complete(&reel).await.created();
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

async fn numbers_outside_the_plan_are_refused(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    let one = format!("/app/uploads/{}/multipart-part-url", reel.id);
    for number in [json!(0), json!(3), json!(-1), json!(10_001), json!(i64::MAX)] {
        ann.post(&one, &json!({"part_number": number})).await.is_invalid(&[("/part_number", "out-of-range")]);
    }
    ann.part_urls(&reel, &json!({"part_numbers": [1, 0, 3]}))
        .await
        .is_invalid(&[("/part_numbers/1", "out-of-range"), ("/part_numbers/2", "out-of-range")]);
    ann.part_urls(&reel, &json!({"from": 0, "to": 2})).await.is_invalid(&[("/from", "out-of-range")]);
    ann.part_urls(&reel, &json!({"from": 1, "to": 3})).await.is_invalid(&[("/to", "out-of-range")]);
    ann.part_urls(&reel, &json!({"from": 2, "to": 1})).await.is_invalid(&[("/to", "out-of-range")]);
    for wrong in [
        json!({}),
        json!({"from": 1}),
        json!({"to": 1}),
        json!({"part_numbers": []}),
        json!({"part_numbers": [1], "from": 1, "to": 2}),
        json!({"part_numbers": vec![1; 10_001]}),
    ] {
        ann.part_urls(&reel, &wrong).await.is_problem(422, "validation-failed");
    }
}

async fn a_direct_session_has_no_parts(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    let problem = ann.part_url(&note, 1).await.is_problem(409, "illegal-transition");
    assert_eq!(problem["upload_status"], "UPLOADING");
    ann.part_urls(&note, &json!({"from": 1, "to": 1})).await.is_problem(409, "illegal-transition");
}

async fn an_ended_session_gets_no_urls(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.cancel(&reel).await.ok();
    let problem = ann.part_url(&reel, 1).await.is_problem(409, "illegal-transition");
    assert_eq!(problem["upload_status"], "CANCELLED");
    ann.part_urls(&reel, &json!({"from": 1, "to": 2})).await.is_problem(409, "illegal-transition");
}

async fn a_url_takes_its_own_part_only(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK - 1).await;
    let mut url = ann.part_url(&reel, 1).await.ok();
    let refused = ann.send_to(&url, reel.part(2).to_vec()).await;
    assert!((400..500).contains(&refused), "one byte less than signed: {refused}");
    let moved = url["upload_url"].as_str().unwrap().replace("partNumber=1", "partNumber=2");
    url["upload_url"] = json!(moved);
    let refused = ann.send_to(&url, reel.part(1).to_vec()).await;
    assert!((400..500).contains(&refused), "another part than signed: {refused}");
    assert_eq!(ann.resume(&reel).await.ok()["uploaded_bytes"], 0);
}

async fn urls_never_outlive_the_session(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    app.advance(TimeDelta::days(7) - TimeDelta::minutes(5));
    let url = ann.part_url(&reel, 1).await.ok();
    let expires: DateTime<Utc> = url["expires_at"].as_str().unwrap().parse().unwrap();
    // Signatures go by the wall clock, on which these are five minutes from now.
    let life = expires - Utc::now();
    assert!(life <= TimeDelta::minutes(5) && life > TimeDelta::minutes(4), "{life}");
}

async fn ten_thousand_come_at_once(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate_with(&json!({"file_name": "huge.bin", "file_size": 10_000 * CHUNK})).await.created();
    let path = format!("/app/uploads/{}/multipart-part-urls", reel["upload_session_id"].as_str().unwrap());
    let urls = ann.post(&path, &json!({"from": 1, "to": 10_000})).await.ok();
    let parts = urls["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 10_000);
    assert_eq!(parts[9_999]["offset"], 9_999 * CHUNK);
}
