use serde_json::{Value, json};

use crate::kit::{Fault, MIB, Op, TestApp, Upload, stories};

stories![
    a_thousand_files_open_and_replay_as_one,
    one_bad_file_takes_no_other_with_it,
    a_reference_that_occurs_twice_rejects_the_second,
    a_batch_with_nothing_to_accept_is_a_problem,
    zero_files_and_more_than_a_thousand_are_refused,
    a_reference_is_made_where_none_is_named,
    an_idempotency_key_counts_for_each_file,
    a_batch_of_a_key_alone_stays_one_batch,
    where_the_store_is_away_the_rest_opens,
    the_summary_counts_what_the_caller_sees,
];

/// `index`, reference and session id of every accepted file.
fn accepted(answer: &Value) -> Vec<(u64, Value, Value)> {
    let uploads = answer["uploads"].as_array().unwrap_or_else(|| panic!("no uploads in {answer}"));
    uploads
        .iter()
        .filter(|file| file["result"] == "accepted")
        .map(|file| {
            let id = file["upload"]["upload_session_id"].clone();
            (file["index"].as_u64().unwrap(), file["client_reference"].clone(), id)
        })
        .collect()
}

async fn a_thousand_files_open_and_replay_as_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let files: Vec<Value> = (0..1_000)
        .map(|n| json!({"file_name": format!("{n}.jpg"), "file_size": 1_000 + n, "client_reference": format!("row-{n}")}))
        .collect();
    let body = json!({"batch_reference": "b-1", "files": files});
    let first = ann.initiate_batch(&body).await.created();
    assert_eq!((&first["accepted"], &first["rejected"]), (&json!(1_000), &json!(0)));
    assert_eq!(first["batch_reference"], "b-1");
    let opened = accepted(&first);
    assert_eq!(opened.len(), 1_000);
    for (n, (index, reference, _)) in opened.iter().enumerate() {
        assert_eq!(*index, n as u64);
        assert_eq!(reference, &json!(format!("row-{n}")));
        assert_eq!(first["uploads"][n]["upload"]["file_name"], format!("{n}.jpg"));
    }
    assert_eq!(ann.send(&Upload::new(first["uploads"][999]["upload"].clone())).await, 200);

    let again = ann.initiate_batch(&body).await.ok();
    assert_eq!(accepted(&again), opened);
    // One more file: the others stay what they are.
    let mut grown = body.clone();
    grown["files"].as_array_mut().unwrap().truncate(10);
    grown["files"]
        .as_array_mut()
        .unwrap()
        .push(json!({"file_name": "new.jpg", "file_size": 1, "client_reference": "new"}));
    let more = ann.initiate_batch(&grown).await.created();
    assert_eq!(accepted(&more)[..10], opened[..10]);
}

async fn one_bad_file_takes_no_other_with_it(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let second = ann.tenant.brand("second");
    let body = json!({"batch_reference": "b", "files": [
        {"file_name": "good.jpg", "file_size": 10, "client_reference": "1"},
        {"file_name": "none.jpg", "file_size": -1, "client_reference": "2"},
        {"file_name": "reel.mov", "file_size": 6 * MIB, "client_reference": "3"},
        {"file_name": "foreign.jpg", "file_size": 10, "client_reference": "4", "brand_id": second},
        {"file_name": "a/b", "file_size": "ten", "client_reference": "5", "colour": "red"},
        {"file_name": "last.jpg", "file_size": 10},
    ]});
    let answer = ann.initiate_batch(&body).await.is(207);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(3), &json!(3)));
    let results: Vec<&str> =
        answer["uploads"].as_array().unwrap().iter().map(|file| file["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["accepted", "rejected", "accepted", "rejected", "rejected", "accepted"]);
    for (index, status, code) in
        [(1, 422, "validation-failed"), (3, 403, "permission-denied"), (4, 422, "validation-failed")]
    {
        let problem = &answer["uploads"][index]["problem"];
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "file {index}: {problem}");
        assert_eq!(answer["uploads"][index]["index"], index);
    }
    assert_eq!(answer["uploads"][5]["client_reference"], Value::Null);
    let page = ann.list("batch_reference=b").await.ok();
    assert_eq!(page["data"].as_array().unwrap().len(), 3);
    // The same again: those that were accepted are there already, the others are still wrong.
    let again = ann.initiate_batch(&body).await.is(207);
    assert_eq!(accepted(&again)[..2], accepted(&answer)[..2]);
}

async fn a_reference_that_occurs_twice_rejects_the_second(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let file = |size: u64| json!({"file_name": "a.jpg", "file_size": size, "client_reference": "same"});
    let answer = ann.initiate_batch(&json!({"files": [file(1), file(1), file(2)]})).await.is(207);
    assert_eq!(accepted(&answer).len(), 1);
    for index in [1, 2] {
        let errors = &answer["uploads"][index]["problem"]["errors"];
        assert_eq!(errors[0]["code"], "duplicate-reference", "{errors}");
    }
}

async fn a_batch_with_nothing_to_accept_is_a_problem(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"batch_reference": "b", "files": [{"file_name": "", "file_size": 1}, {"file_size": 1}]});
    let problem = ann.initiate_batch(&body).await.is_problem(422, "validation-failed");
    assert_eq!((&problem["accepted"], &problem["rejected"]), (&json!(0), &json!(2)));
    assert_eq!(problem["batch_reference"], "b");
    assert_eq!(problem["uploads"].as_array().unwrap().len(), 2);
    ann.batch("b").await.is_problem(404, "not-found");
}

async fn zero_files_and_more_than_a_thousand_are_refused(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let file = json!({"file_name": "a", "file_size": 1});
    for count in [0, 1_001] {
        let problem =
            ann.initiate_batch(&json!({"files": vec![file.clone(); count]})).await.is_problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], "/files", "{problem}");
    }
    ann.initiate_batch(&json!({})).await.is_invalid(&[("/files", "required")]);
    ann.initiate_batch(&json!({"files": "all"})).await.is_invalid(&[("/files", "wrong-type")]);
    assert_eq!(ann.list("").await.ok()["data"], json!([]));
}

async fn a_reference_is_made_where_none_is_named(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"files": [{"file_name": "a", "file_size": 1}]});
    let answer = ann.initiate_batch(&body).await.created();
    let reference = answer["batch_reference"].as_str().unwrap();
    assert_eq!(answer["uploads"][0]["upload"]["batch_reference"], reference);
    assert_eq!(ann.batch(reference).await.ok()["batch_reference"], reference);
    assert_ne!(ann.initiate_batch(&body).await.created()["batch_reference"], reference);
}

async fn an_idempotency_key_counts_for_each_file(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"batch_reference": "b", "files": [{"file_name": "a", "file_size": 1}, {"file_name": "b", "file_size": 1}]});
    let send = || {
        app.send(reqwest::Method::POST, "/app/uploads/initiate-batch", |request| {
            request.bearer_auth(ann.token()).header("Idempotency-Key", "key").json(&body)
        })
    };
    let first = send().await.created();
    let ids = accepted(&first);
    assert_ne!(ids[0].2, ids[1].2);
    assert_eq!(accepted(&send().await.ok()), ids);
}

/// Also where the reference is made here: what was refused the first time comes to the rest.
async fn a_batch_of_a_key_alone_stays_one_batch(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"files": [{"file_name": "a", "file_size": 1}, {"file_name": "b", "file_size": 6 * MIB}]});
    let send = |key: &'static str| {
        let (ann, body) = (&ann, &body);
        app.send(reqwest::Method::POST, "/app/uploads/initiate-batch", move |request| {
            request.bearer_auth(ann.token()).header("Idempotency-Key", key).json(body)
        })
    };
    app.store.faults().order(Op::CreateMultipartUpload, Fault::Answer(503, "SlowDown"));
    let first = send("key").await.is(207);
    app.store.heal();
    let again = send("key").await.ok();
    let reference = first["batch_reference"].as_str().unwrap();
    assert_eq!(again["batch_reference"], reference);
    assert_eq!(again["uploads"][1]["upload"]["batch_reference"], reference);
    assert_eq!(ann.batch(reference).await.ok()["sessions"], 2);
    assert_ne!(send("another").await.created()["batch_reference"], reference);
}

async fn where_the_store_is_away_the_rest_opens(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"batch_reference": "b", "files": [
        {"file_name": "small.jpg", "file_size": 10, "client_reference": "1"},
        {"file_name": "large.mov", "file_size": 6 * MIB, "client_reference": "2"},
    ]});
    app.store.faults().order(Op::CreateMultipartUpload, Fault::Answer(503, "SlowDown"));
    let partly = ann.initiate_batch(&body).await.is(207);
    let problem = &partly["uploads"][1]["problem"];
    assert_eq!((&problem["status"], &problem["code"]), (&json!(503), &json!("storage-unavailable")));

    let large = json!({"batch_reference": "c", "files": [{"file_name": "large.mov", "file_size": 6 * MIB, "client_reference": "2"}]});
    ann.initiate_batch(&large).await.is_problem(503, "storage-unavailable");
    app.store.heal();

    // The session was there already, INITIATING: the same request opens it.
    let healed = ann.initiate_batch(&body).await.ok();
    assert_eq!((&healed["accepted"], &healed["rejected"]), (&json!(2), &json!(0)));
    assert_eq!(healed["uploads"][1]["upload"]["status"], "UPLOADING");
    assert_eq!(ann.initiate_batch(&large).await.ok()["uploads"][0]["upload"]["status"], "UPLOADING");
}

async fn the_summary_counts_what_the_caller_sees(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann").permissions(&["uploads.create", "uploads.view", "uploads.cancel", "assets.create"]);
    let files: Vec<Value> =
        (0..4).map(|n| json!({"file_name": "f", "file_size": 10, "client_reference": n.to_string()})).collect();
    let answer = ann.initiate_batch(&json!({"batch_reference": "b 1/ü", "files": files})).await.created();
    let upload = |n: usize| Upload::new(answer["uploads"][n]["upload"].clone());
    ann.cancel(&upload(0)).await.ok();
    assert_eq!(ann.send(&upload(1)).await, 200);
    ann.complete(&upload(1)).await.created();

    let summary = ann.batch("b%201%2F%C3%BC").await.ok();
    assert_eq!(summary["batch_reference"], "b 1/ü");
    for (status, count) in [("UPLOADING", 2), ("CANCELLED", 1), ("COMPLETED", 1)] {
        assert_eq!(summary["counts"][status], count, "{summary}");
    }
    let bob = acme.user("bob").permissions(&["uploads.create", "uploads.view"]);
    bob.batch("b%201%2F%C3%BC").await.is_problem(404, "not-found");
    let boss = acme.user("boss").permissions(&["uploads.view", "uploads.manage"]);
    assert_eq!(boss.batch("b%201%2F%C3%BC").await.ok(), summary);
    boss.brands(&["second"]).batch("b%201%2F%C3%BC").await.is_problem(404, "not-found");
    app.tenant("globex").user("ann").batch("b%201%2F%C3%BC").await.is_problem(404, "not-found");
}
