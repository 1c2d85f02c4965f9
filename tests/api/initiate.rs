use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::kit::{CHUNK, KIB, MIB, Op, TestApp, Upload, stories};

stories![
    a_small_file_goes_by_one_put,
    a_large_file_goes_by_parts,
    the_size_decides_which_way_it_goes,
    names_come_back_as_they_were_sent,
    everything_that_was_said_is_kept,
    a_put_takes_exactly_the_announced_bytes,
    a_checksum_is_signed_into_the_put,
    a_key_opens_one_session,
    references_open_one_session,
    references_are_their_users_own,
    a_reference_stays_used_after_its_session_ended,
    a_key_and_references_of_two_sessions_conflict,
    the_brand_may_be_left_out_where_there_is_no_choice,
    many_at_once_with_one_key_open_one_session,
    a_replay_finds_the_upload_whose_answer_is_still_on_its_way,
    a_replay_that_overtakes_leaves_one_upload,
];

async fn a_small_file_goes_by_one_put(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let logo = ann.initiate("logo.svg", 300 * KIB).await;
    let session = &logo.session;
    assert_eq!(session["status"], "UPLOADING");
    assert_eq!(session["upload_type"], "direct");
    for field in ["multipart_upload_id", "chunk_size", "total_parts", "asset_id", "failure_reason"] {
        assert_eq!(session[field], Value::Null, "{field}");
    }
    assert_eq!(session["created_by"], "ann");
    assert_eq!(session["brand_id"], json!(ann.tenant.brand("main")));
    assert_eq!(session["mime_type"], "application/octet-stream");
    assert_eq!(session["upload_method"], "PUT");
    let headers = session["upload_headers"].as_object().unwrap();
    assert!(
        !headers.keys().any(|name| ["host", "content-length"].contains(&name.to_lowercase().as_str())),
        "{headers:?}"
    );
    let expires: DateTime<Utc> = session["upload_url_expires_at"].as_str().unwrap().parse().unwrap();
    let life = expires - Utc::now();
    assert!(life.num_seconds() > 890 && life.num_seconds() <= 900, "{life}");

    assert_eq!(ann.send(&logo).await, 200);
    let asset = ann.complete(&logo).await.created();
    assert_eq!(asset["upload_session_id"], json!(logo.id));
    assert_eq!(asset["status"], "UPLOADED");
    assert_eq!(asset["title"], "logo.svg");
    assert_eq!(asset["file_size"], 300 * KIB);
    assert_eq!(asset["checksum_verified"], false);
    assert!(app.store.read(&logo.key()).await == logo.bytes);

    let session = ann.session(&logo).await.ok();
    assert_eq!(session["status"], "COMPLETED");
    assert_eq!(session["asset_id"], asset["asset_id"]);
    assert_eq!(session["version"], 3);
    assert_eq!(ann.history(&logo).await, ["initiate", "open", "complete"]);
    let path = format!("/app/assets/{}", asset["asset_id"].as_str().unwrap());
    assert_eq!(ann.get(&path).await.ok(), asset);
}

async fn a_large_file_goes_by_parts(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 2 * CHUNK + 7).await;
    assert_eq!(reel.session["upload_type"], "multipart");
    assert_eq!(reel.session["chunk_size"], CHUNK);
    assert_eq!(reel.session["total_parts"], 3);
    assert_eq!(reel.session["upload_url"], Value::Null);
    assert_eq!(app.store.uploads().await, [(reel.key(), reel.upload_id().to_owned())]);

    ann.send_all_parts(&reel).await;
    let asset = ann.complete(&reel).await.created();
    assert!(asset["etag"].as_str().unwrap().ends_with("-3"), "{asset}");
    assert!(app.store.read(&reel.key()).await == reel.bytes);
    assert!(app.store.uploads().await.is_empty());
}

async fn the_size_decides_which_way_it_goes(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for (size, parts) in [(1, Value::Null), (5 * MIB, Value::Null), (5 * MIB + 1, json!(2)), (10 * MIB, json!(2))] {
        assert_eq!(ann.initiate("file.bin", size).await.session["total_parts"], parts, "{size} bytes");
    }
    // 5 TiB in 10,000 parts: they have to be larger than the preferred size.
    let huge = ann.initiate_with(&json!({"file_name": "huge.bin", "file_size": 5u64 << 40})).await.created();
    let (chunk, parts) = (huge["chunk_size"].as_u64().unwrap(), huge["total_parts"].as_u64().unwrap());
    assert!(parts <= 10_000 && chunk * parts >= 5 << 40 && chunk * (parts - 1) < 5 << 40, "{parts} of {chunk}");
}

async fn names_come_back_as_they_were_sent(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let longest = "ü".repeat(255);
    let names = [
        "a b+c%20d&e=f;g.txt",
        "🎬 Фильм 第一章.mov",
        "\u{202b}ملف\u{202c}.pdf",
        "..",
        "'; DROP TABLE asset; --",
        "\"<b>\"",
        &longest,
        " ",
        "e\u{301}.txt",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}.png",
    ];
    for name in names {
        let upload = ann.initiate(name, 3).await;
        assert_eq!(upload.session["file_name"], name);
        assert_eq!(ann.send(&upload).await, 200);
        let asset = ann.complete(&upload).await.created();
        assert_eq!(asset["file_name"], name);
        assert_eq!(asset["title"], name);
    }
}

async fn everything_that_was_said_is_kept(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let said = json!({
        "file_name": "reel.mov", "file_size": 9 * MIB, "mime_type": "video/quicktime", "brand_id": ann.tenant.brand("main"),
        "client_reference": "row-3", "batch_reference": "b-81", "fingerprint": "f00", "checksum_sha256": "ab".repeat(32),
        "metadata": {"campaign": "spring", "n": 1.5, "tags": ["a", null], "deep": {"er": true}},
    });
    let session = ann.initiate_with(&said).await.created();
    for (field, value) in said.as_object().unwrap() {
        assert_eq!(&session[field], value, "{field}");
    }
    let upload = Upload::new(session);
    let kept = ann.session(&upload).await.ok();
    for (field, value) in kept.as_object().unwrap() {
        assert_eq!(&upload.session[field], value, "{field}");
    }
}

async fn a_put_takes_exactly_the_announced_bytes(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 1000).await;
    for wrong in [0, 999, 1001] {
        let status = ann.send_to(&note.session, vec![b'x'; wrong]).await;
        assert!((400..500).contains(&status), "{wrong} bytes: {status}");
    }
    assert!(app.store.objects().await.is_empty());
    assert_eq!(ann.send(&note).await, 200);
}

async fn a_checksum_is_signed_into_the_put(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    // SHA-256 of "hello".
    let sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let body = json!({"file_name": "hello.txt", "file_size": 5, "checksum_sha256": sum});
    let hello = Upload::new(ann.initiate_with(&body).await.created());

    let status = ann.send_to(&hello.session, b"olleh".to_vec()).await;
    assert!((400..500).contains(&status), "the store takes other bytes: {status}");
    assert_eq!(ann.complete(&hello).await.is_problem(409, "upload-incomplete")["uploaded_bytes"], 0);

    assert_eq!(ann.send_to(&hello.session, b"hello".to_vec()).await, 200);
    let asset = ann.complete(&hello).await.created();
    assert_eq!(asset["checksum_sha256"], sum);
    assert_eq!(asset["checksum_verified"], true);
}

async fn a_key_opens_one_session(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "note.txt", "file_size": 1000});
    let first = ann.initiate_with_key("key-1", &body).await.created();
    let again = ann.initiate_with_key("key-1", &body).await.ok();
    assert_eq!(again["upload_session_id"], first["upload_session_id"]);
    assert_eq!(ann.send_to(&again, vec![b'x'; 1000]).await, 200);

    let other_size = json!({"file_name": "note.txt", "file_size": 1001});
    ann.initiate_with_key("key-1", &other_size).await.is_problem(409, "reference-conflict");
    let other_name = json!({"file_name": "note.md", "file_size": 1000});
    ann.initiate_with_key("key-1", &other_name).await.is_problem(409, "reference-conflict");
    let checksum = json!({"file_name": "note.txt", "file_size": 1000, "checksum_sha256": "00".repeat(32)});
    ann.initiate_with_key("key-1", &checksum).await.is_problem(409, "reference-conflict");

    ann.initiate_with_key("key-2", &body).await.created();
    for bad in ["", &"k".repeat(129)] {
        assert_eq!(ann.initiate_with_key(bad, &body).await.status, 422, "key of {} characters", bad.len());
    }
}

async fn references_open_one_session(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "reel.mov", "file_size": 9 * MIB, "batch_reference": "b", "client_reference": "c"});
    let first = ann.initiate_with(&body).await.created();
    assert_eq!(ann.initiate_with(&body).await.ok()["upload_session_id"], first["upload_session_id"]);
    assert_eq!(app.store.uploads().await.len(), 1);

    // Either reference by itself says nothing.
    let batch_only = json!({"file_name": "reel.mov", "file_size": 9 * MIB, "batch_reference": "b"});
    ann.initiate_with(&batch_only).await.created();
    ann.initiate_with(&batch_only).await.created();
    let client_only = json!({"file_name": "reel.mov", "file_size": 9 * MIB, "client_reference": "c"});
    ann.initiate_with(&client_only).await.created();
    ann.initiate_with(&client_only).await.created();
}

async fn references_are_their_users_own(app: TestApp) {
    let acme = app.tenant("acme");
    let body = json!({"file_name": "a", "file_size": 1, "batch_reference": "b", "client_reference": "c"});
    let callers =
        [acme.user("ann"), acme.user("bob"), acme.user("ann").brands(&["second"]), app.tenant("globex").user("ann")];
    let mut ids = Vec::new();
    for caller in &callers {
        ids.push(caller.initiate_with_key("key", &body).await.created()["upload_session_id"].clone());
    }
    for (caller, id) in callers.iter().zip(&ids) {
        assert_eq!(&caller.initiate_with_key("key", &body).await.ok()["upload_session_id"], id);
    }
}

async fn a_reference_stays_used_after_its_session_ended(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "note.txt", "file_size": 10, "batch_reference": "b", "client_reference": "c"});
    let note = Upload::new(ann.initiate_with(&body).await.created());
    ann.cancel(&note).await.ok();
    let again = ann.initiate_with(&body).await.ok();
    assert_eq!(again["upload_session_id"], json!(note.id));
    assert_eq!(again["status"], "CANCELLED");
    for field in ["upload_url", "upload_method", "upload_headers", "upload_url_expires_at"] {
        assert_eq!(again[field], Value::Null, "{field}");
    }
}

async fn a_key_and_references_of_two_sessions_conflict(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let plain = json!({"file_name": "a", "file_size": 1});
    let referenced = json!({"file_name": "a", "file_size": 1, "batch_reference": "b", "client_reference": "c"});
    ann.initiate_with_key("key", &plain).await.created();
    ann.initiate_with(&referenced).await.created();
    ann.initiate_with_key("key", &referenced).await.is_problem(409, "reference-conflict");
}

async fn the_brand_may_be_left_out_where_there_is_no_choice(app: TestApp) {
    let acme = app.tenant("acme");
    let file = json!({"file_name": "a", "file_size": 1});
    let for_brand = |id: Value| json!({"file_name": "a", "file_size": 1, "brand_id": id});

    let both = acme.user("ann").brands(&["main", "second"]);
    both.initiate_with(&file).await.is_invalid(&[("/brand_id", "required")]);
    let second = both.initiate_with(&for_brand(json!(acme.brand("second")))).await.created();
    assert_eq!(second["brand_id"], json!(acme.brand("second")));

    let all = acme.user("ann").all_brands();
    all.initiate_with(&file).await.is_invalid(&[("/brand_id", "required")]);
    let foreign = for_brand(json!(app.tenant("globex").brand("main")));
    all.initiate_with(&foreign).await.is_invalid(&[("/brand_id", "unknown-brand")]);
    acme.user("ann").initiate_with(&foreign).await.is_problem(403, "permission-denied");
    acme.user("ann").initiate_with(&for_brand(json!(acme.brand("second")))).await.is_problem(403, "permission-denied");

    app.tenant("globex").user("gil").all_brands().initiate_with(&file).await.created();
    acme.user("ann").brands(&[]).initiate_with(&file).await.is_invalid(&[("/brand_id", "required")]);
}

async fn many_at_once_with_one_key_open_one_session(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "reel.mov", "file_size": 9 * MIB});
    let replies = join_all((0..16).map(|_| ann.initiate_with_key("key", &body))).await;
    let ids: Vec<Value> = replies
        .iter()
        .map(|reply| {
            assert!([200, 201].contains(&reply.status), "{reply}");
            assert_eq!(reply.json()["status"], "UPLOADING", "{reply}");
            reply.json()["upload_session_id"].clone()
        })
        .collect();
    assert!(ids.iter().all(|id| id == &ids[0]), "{ids:?}");
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    assert_eq!(app.store.uploads().await.len(), 1);
}

async fn a_replay_finds_the_upload_whose_answer_is_still_on_its_way(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "reel.mov", "file_size": 9 * MIB});
    let held = app.store.faults().hold_answer(Op::CreateMultipartUpload);
    let first = {
        let (ann, body) = (ann.clone(), body.clone());
        tokio::spawn(async move { ann.initiate_with_key("key", &body).await })
    };
    held.arrived().await;
    let replay = ann.initiate_with_key("key", &body).await.ok();
    held.release();
    let first = first.await.unwrap().created();
    assert_eq!(first["multipart_upload_id"], replay["multipart_upload_id"]);
    assert_eq!(first["upload_session_id"], replay["upload_session_id"]);
    assert_eq!(app.store.faults().calls(Op::CreateMultipartUpload), 1);
}

async fn a_replay_that_overtakes_leaves_one_upload(app: TestApp) {
    // The first attempt waits before the store hears of it, for longer than its own time-out allows by default.
    app.restart_with(&[
        ("QUAYMASTER_STORAGE__READ_TIMEOUT_SECS", "60"),
        ("QUAYMASTER_STORAGE__ATTEMPT_TIMEOUT_SECS", "60"),
    ])
    .await;
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_name": "reel.mov", "file_size": 9 * MIB});
    let held = app.store.faults().hold_request(Op::CreateMultipartUpload);
    let open =
        |ann: crate::kit::Actor, body: Value| tokio::spawn(async move { ann.initiate_with_key("key", &body).await });
    let first = open(ann.clone(), body.clone());
    held.arrived().await;
    let second = open(ann.clone(), body.clone());
    tokio::time::timeout(Duration::from_secs(30), held.arrived()).await.expect("the replay asks the store too");
    held.release();
    let (first, second) = (first.await.unwrap().json(), second.await.unwrap().json());
    assert_eq!(first["upload_session_id"], second["upload_session_id"]);
    assert_eq!(first["multipart_upload_id"], second["multipart_upload_id"]);
    assert_eq!(app.store.faults().calls(Op::CreateMultipartUpload), 2);
    assert_eq!(app.store.uploads().await.len(), 1);
}
