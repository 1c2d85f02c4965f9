use serde_json::{Value, json};

use crate::kit::{Actor, Fault, MIB, Op, TestApp, Upload, stories};

stories![
    many_sessions_are_completed_as_one,
    one_that_lacks_bytes_takes_no_other_with_it,
    nothing_completed_is_a_problem,
    an_outage_is_told_as_one,
    a_session_named_twice_is_one_asset,
    odd_batches_are_refused,
];

/// Sessions whose bytes are in the store.
async fn sent(ann: &Actor, count: usize) -> Vec<Upload> {
    let mut uploads = Vec::new();
    for n in 0..count {
        let upload = ann.initiate(&format!("{n}.jpg"), 1_000 + n as u64).await;
        assert_eq!(ann.send(&upload).await, 200);
        uploads.push(upload);
    }
    uploads
}

fn named(uploads: &[Upload]) -> Vec<Value> {
    uploads.iter().map(|upload| json!({"upload_session_id": upload.id})).collect()
}

async fn many_sessions_are_completed_as_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let uploads = sent(&ann, 40).await;
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    let parts = ann.resume(&reel).await.ok()["uploaded_parts"].clone();
    let parts: Vec<Value> = parts
        .as_array()
        .unwrap()
        .iter()
        .map(|part| json!({"part_number": part["part_number"], "etag": part["etag"]}))
        .collect();
    let mut body = named(&uploads);
    body.push(json!({"upload_session_id": reel.id, "parts": parts, "title": "The reel", "metadata": {"a": 1}}));

    let first = ann.complete_batch(&body).await.created();
    assert_eq!((&first["completed"], &first["failed"]), (&json!(41), &json!(0)));
    for (n, upload) in uploads.iter().chain([&reel]).enumerate() {
        let item = &first["uploads"][n];
        assert_eq!((&item["index"], &item["result"]), (&json!(n), &json!("completed")), "{item}");
        assert_eq!(item["upload_session_id"], json!(upload.id));
        assert_eq!(item["asset"], ann.complete(upload).await.ok(), "as one by one");
    }
    assert_eq!(first["uploads"][40]["asset"]["title"], "The reel");
    assert_eq!(first["uploads"][40]["asset"]["metadata"], json!({"a": 1}));
    assert_eq!(ann.complete_batch(&body).await.ok(), first, "again, the same");
}

async fn one_that_lacks_bytes_takes_no_other_with_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let uploads = sent(&ann, 2).await;
    let (empty, cancelled) = (ann.initiate("empty", 5).await, ann.initiate("cancelled", 5).await);
    ann.cancel(&cancelled).await.ok();
    let foreign = app.tenant("globex").user("eve").initiate("theirs", 5).await;
    let mut body = named(&[uploads[0].clone(), empty.clone(), cancelled, foreign, uploads[1].clone()]);
    body.push(json!({"upload_session_id": "no id"}));
    body.push(json!({"upload_session_id": uploads[0].id, "colour": "red"}));
    body.push(json!(7));

    let reply = ann.complete_batch(&body).await.is(207);
    assert_eq!((&reply["completed"], &reply["failed"]), (&json!(2), &json!(6)));
    let results = reply["uploads"].as_array().unwrap();
    let codes: Vec<&str> = results.iter().map(|item| item["problem"]["code"].as_str().unwrap_or("-")).collect();
    let expected = [
        "-",
        "upload-incomplete",
        "illegal-transition",
        "not-found",
        "-",
        "validation-failed",
        "validation-failed",
        "validation-failed",
    ];
    assert_eq!(codes, expected, "{reply}");
    assert_eq!(results[6]["problem"]["errors"][0]["pointer"], "/uploads/6/colour");
    assert_eq!(ann.status(&empty).await, "UPLOADING");
    ann.complete(&uploads[1]).await.ok();
}

async fn nothing_completed_is_a_problem(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let empty = ann.initiate("empty", 5).await;
    let problem = ann.complete_batch(&named(&[empty])).await.is_problem(422, "validation-failed");
    assert_eq!((&problem["completed"], &problem["failed"]), (&json!(0), &json!(1)));
    assert_eq!(problem["uploads"][0]["problem"]["code"], "upload-incomplete");
}

async fn an_outage_is_told_as_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let uploads = sent(&ann, 2).await;
    app.store.faults().order(Op::HeadObject, Fault::Answer(503, "SlowDown"));
    let problem = ann.complete_batch(&named(&uploads)).await.is_problem(503, "storage-unavailable");
    assert_eq!(problem["uploads"][1]["problem"]["code"], "storage-unavailable");
    app.store.heal();
    ann.complete_batch(&named(&uploads)).await.created();
}

async fn a_session_named_twice_is_one_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let upload = sent(&ann, 1).await.remove(0);
    let twice = vec![json!({"upload_session_id": upload.id}); 20];
    let reply = ann.complete_batch(&twice).await.created();
    let asset = &reply["uploads"][0]["asset"];
    assert!(reply["uploads"].as_array().unwrap().iter().all(|item| item["asset"] == *asset), "{reply}");
}

async fn odd_batches_are_refused(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    ann.complete_batch(&[]).await.is_problem(422, "validation-failed");
    let many = vec![json!({"upload_session_id": uuid::Uuid::nil()}); 1_001];
    ann.complete_batch(&many).await.is_problem(422, "validation-failed");
    let body = json!({"uploads": {}, "colour": "red"});
    let problem = ann.post("/app/assets/upload/complete-batch", &body).await.is_problem(422, "validation-failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
}
