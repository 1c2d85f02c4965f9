use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::kit::{CHUNK, Fault, KIB, MIB, Op, TestApp, stories};

stories![
    it_names_the_parts_that_are_missing,
    a_direct_session_without_its_bytes_is_incomplete,
    a_part_of_the_wrong_size_is_missing,
    the_clients_list_must_agree_with_the_store,
    quotes_around_etags_do_not_matter,
    parts_that_the_store_forgets_too_early_are_not_missed,
    the_second_time_answers_the_same_asset,
    many_at_once_make_one_asset,
    title_and_metadata_go_to_the_asset,
    a_part_sent_twice_counts_once,
    an_object_of_the_wrong_size_fails_the_session,
    a_session_whose_bytes_are_gone_fails,
    an_ended_session_is_refused,
    an_expired_session_is_refused,
    a_direct_url_outlives_completion_without_harm,
    a_lost_answer_does_not_make_a_second_asset,
    a_cut_answer_does_not_make_a_second_asset,
];

async fn it_names_the_parts_that_are_missing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 3 * CHUNK).await;
    let nothing = ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    assert_eq!(nothing["missing_parts"], json!([1, 2, 3]));
    assert_eq!(nothing["uploaded_bytes"], 0);

    ann.put_part(&reel, 2).await;
    let some = ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    assert_eq!(some["missing_parts"], json!([1, 3]));
    assert_eq!(some["uploaded_bytes"], CHUNK);
    assert_eq!(ann.status(&reel).await, "UPLOADING");

    ann.put_part(&reel, 1).await;
    ann.put_part(&reel, 3).await;
    ann.complete(&reel).await.created();
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

async fn a_direct_session_without_its_bytes_is_incomplete(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 100).await;
    assert_eq!(ann.complete(&note).await.is_problem(409, "upload-incomplete")["uploaded_bytes"], 0);
    assert_eq!(ann.send(&note).await, 200);
    ann.complete(&note).await.created();
}

async fn a_part_of_the_wrong_size_is_missing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 2).await;
    // No URL of ours takes another size; a holder of the store's own key could do this.
    app.store
        .s3
        .upload_part()
        .bucket(&app.store.bucket)
        .key(reel.key())
        .upload_id(reel.upload_id())
        .part_number(1)
        .body(vec![1; 6 * 1024 * 1024].into())
        .send()
        .await
        .unwrap();
    let problem = ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    assert_eq!(problem["missing_parts"], json!([1]));
    ann.put_part(&reel, 1).await;
    ann.complete(&reel).await.created();
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

/// The list as a client keeps it: each part's number with the ETag that the store gave.
async fn kept_list(ann: &crate::kit::Actor, upload: &crate::kit::Upload) -> Vec<Value> {
    let held = ann.resume(upload).await.ok();
    let parts = held["uploaded_parts"].as_array().unwrap();
    parts.iter().map(|part| json!({"part_number": part["part_number"], "etag": part["etag"]})).collect()
}

async fn the_clients_list_must_agree_with_the_store(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.send_all_parts(&reel).await;
    let list = kept_list(&ann, &reel).await;

    let with = |parts: Value| json!({"upload_session_id": reel.id, "parts": parts});
    let mut other_etag = list.clone();
    other_etag[1]["etag"] = list[0]["etag"].clone();
    for wrong in
        [json!([list[0]]), json!([list[0], list[0]]), json!([list[0], list[1], list[1]]), json!(other_etag), json!([])]
    {
        ann.complete_with(&with(wrong)).await.is_problem(409, "parts-mismatch");
    }
    assert_eq!(ann.status(&reel).await, "UPLOADING");
    ann.complete_with(&with(json!([list[1], list[0]]))).await.created();
    // Once it is an asset, no list matters any more.
    ann.complete_with(&with(json!([list[0]]))).await.ok();
}

async fn quotes_around_etags_do_not_matter(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.send_all_parts(&reel).await;
    let mut list = kept_list(&ann, &reel).await;
    assert!(!list[0]["etag"].as_str().unwrap().contains('"'), "{list:?}");
    list[0]["etag"] = json!(format!("\"{}\"", list[0]["etag"].as_str().unwrap()));
    ann.complete_with(&json!({"upload_session_id": reel.id, "parts": list})).await.created();
}

/// As Garage does while it makes the object for another caller, whose answer was lost.
async fn parts_that_the_store_forgets_too_early_are_not_missed(app: TestApp) {
    let nothing = || Fault::Say("<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>".to_owned());
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.put_part(&reel, 1).await;
    app.store.faults().order(Op::ListParts, nothing());
    // Without an object it is what it looks like.
    ann.complete(&reel).await.is_problem(409, "upload-incomplete");
    app.store.heal();
    ann.send_all_parts(&reel).await;
    app.store.faults().drop_answers(Op::CompleteMultipartUpload);
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    app.store.faults().order(Op::ListParts, nothing());
    let held = ann.resume(&reel).await.ok();
    assert_eq!((&held["can_resume"], &held["uploaded_bytes"]), (&json!(true), &json!(6 * MIB)));
    ann.complete(&reel).await.created();
    app.store.heal();
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

async fn the_second_time_answers_the_same_asset(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann");
    for size in [10, 6 * MIB] {
        let file = ann.initiate("file.bin", size).await;
        if size == 10 {
            assert_eq!(ann.send(&file).await, 200);
        } else {
            ann.send_all_parts(&file).await;
        }
        let asset = ann.complete(&file).await.created();
        assert_eq!(ann.complete(&file).await.ok(), asset);
        let other_title = json!({"upload_session_id": file.id, "title": "another"});
        assert_eq!(ann.complete_with(&other_title).await.ok(), asset);
        assert_eq!(acme.user("boss").complete(&file).await.ok(), asset);
        assert_eq!(ann.history(&file).await, ["initiate", "open", "complete"]);
    }
}

async fn many_at_once_make_one_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for size in [10, 6 * MIB] {
        let file = ann.initiate("file.bin", size).await;
        if size == 10 {
            assert_eq!(ann.send(&file).await, 200);
        } else {
            ann.send_all_parts(&file).await;
        }
        let replies = join_all((0..32).map(|_| ann.complete(&file))).await;
        let asset = replies[0].json();
        for reply in &replies {
            assert!([200, 201].contains(&reply.status), "{reply}");
            assert_eq!(reply.json(), asset);
        }
        assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    }
}

async fn title_and_metadata_go_to_the_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "a.png", "file_size": 4, "metadata": {"keep": 1, "replace": {"a": 1}}});
    let file = crate::kit::Upload::new(ann.initiate_with(&body).await.created());
    assert_eq!(ann.send(&file).await, 200);
    let asset = ann
        .complete_with(&json!({
            "upload_session_id": file.id, "title": "A picture 🖼", "metadata": {"replace": {"b": 2}, "new": null},
        }))
        .await
        .created();
    assert_eq!(asset["title"], "A picture 🖼");
    assert_eq!(asset["metadata"], json!({"keep": 1, "replace": {"b": 2}, "new": null}));
    // The session keeps what it was opened with.
    assert_eq!(ann.session(&file).await.ok()["metadata"], json!({"keep": 1, "replace": {"a": 1}}));
}

async fn a_part_sent_twice_counts_once(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", CHUNK + 1).await;
    let url = ann.part_url(&reel, 1).await.ok();
    assert_eq!(ann.send_to(&url, vec![0; usize::try_from(CHUNK).unwrap()]).await, 200);
    ann.send_all_parts(&reel).await;
    ann.complete(&reel).await.created();
    assert!(app.store.read(&reel.key()).await == reel.bytes);
}

async fn an_object_of_the_wrong_size_fails_the_session(app: TestApp) {
    app.expect_leftovers();
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 100).await;
    let put = app.store.s3.put_object().bucket(&app.store.bucket).key(note.key());
    put.body(vec![0; 99].into()).send().await.unwrap();
    let problem = ann.complete(&note).await.is_problem(409, "illegal-transition");
    assert_eq!(problem["upload_status"], "FAILED");
    let session = ann.session(&note).await.ok();
    assert_eq!(session["failure_reason"], "verification_failed");
    assert_eq!(session["asset_id"], Value::Null);
    assert_eq!(ann.history(&note).await, ["initiate", "open", "fail"]);
}

async fn a_session_whose_bytes_are_gone_fails(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    app.store.abort(&reel.key(), reel.upload_id()).await;
    let problem = ann.complete(&reel).await.is_problem(409, "illegal-transition");
    assert_eq!(problem["upload_status"], "FAILED");
    assert_eq!(ann.session(&reel).await.ok()["failure_reason"], "storage_error");
    assert_eq!(ann.history(&reel).await, ["initiate", "open", "fail"]);
}

async fn an_ended_session_is_refused(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for size in [10, 6 * MIB] {
        let file = ann.initiate("file.bin", size).await;
        ann.cancel(&file).await.ok();
        let problem = ann.complete(&file).await.is_problem(409, "illegal-transition");
        assert_eq!(problem["upload_status"], "CANCELLED");
    }
}

async fn an_expired_session_is_refused(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    app.advance(chrono::TimeDelta::days(7));
    ann.complete(&note).await.is_problem(409, "session-expired");
    assert_eq!(ann.status(&note).await, "UPLOADING");
}

async fn a_direct_url_outlives_completion_without_harm(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10 * KIB).await;
    assert_eq!(ann.send(&note).await, 200);
    let asset = ann.complete(&note).await.created();
    let others = vec![7; note.bytes.len()];
    assert_eq!(ann.send_to(&note.session, others).await, 200);
    // The ETag that completion recorded tells the two apart.
    assert_eq!(ann.complete(&note).await.ok(), asset);
    let head = app.store.s3.head_object().bucket(&app.store.bucket).key(note.key()).send().await.unwrap();
    assert_ne!(head.e_tag().unwrap().trim_matches('"'), asset["etag"].as_str().unwrap());
}

async fn a_lost_answer_does_not_make_a_second_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;

    // The store finishes the upload, but its answer never reaches us.
    app.store.faults().drop_answers(Op::CompleteMultipartUpload);
    app.store.faults().drop_answers(Op::HeadObject);
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.store.heal();

    // Asking again finds the object instead of an upload, and makes the asset.
    let asset = ann.complete(&reel).await.created();
    assert_eq!(ann.complete(&reel).await.ok(), asset);
}

async fn a_cut_answer_does_not_make_a_second_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    app.store.faults().order(Op::CompleteMultipartUpload, Fault::CutAnswer);
    app.store.faults().order(Op::HeadObject, Fault::DropRequest);
    ann.complete(&reel).await.is_problem(503, "storage-unavailable");
    app.store.heal();
    ann.complete(&reel).await.created();
}
