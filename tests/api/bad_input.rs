//! What clients get wrong: a precise 4xx each time, never a 5xx, and no row comes of it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{Actor, MIB, Reply, TestApp, stories};

stories![
    fields_are_named_one_by_one,
    all_fields_are_named_at_once,
    bodies_that_are_no_json_are_malformed,
    other_media_types_are_refused,
    large_bodies_are_cut_off,
    slow_clients_are_let_go,
    ids_have_one_spelling,
    u0000_is_refused_everywhere,
    complete_checks_its_fields,
];

/// No refused request has left anything.
async fn nothing_came_of_it(ann: &Actor) {
    assert_eq!(ann.list("").await.ok()["data"], json!([]));
}

async fn post_raw(ann: &Actor, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
    let app = &ann.app;
    app.send(Method::POST, path, |request| {
        request.bearer_auth(ann.token()).header("Content-Type", content_type).body(body)
    })
    .await
}

async fn fields_are_named_one_by_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let long = "x".repeat(256);
    let long_reference = "x".repeat(129);
    let table: &[(&str, Value, &str)] = &[
        ("file_name", Value::Null, "required"),
        ("file_name", json!(""), "too-short"),
        ("file_name", json!(long), "too-long"),
        ("file_name", json!("a/b"), "invalid-character"),
        ("file_name", json!("a\\b"), "invalid-character"),
        ("file_name", json!("a\u{7}b"), "invalid-character"),
        ("file_name", json!("a\nb"), "invalid-character"),
        ("file_name", json!("a\u{85}b"), "invalid-character"),
        ("file_name", json!(7), "wrong-type"),
        ("file_name", json!(["a"]), "wrong-type"),
        ("file_size", Value::Null, "required"),
        ("file_size", json!(-1), "out-of-range"),
        ("file_size", json!(1.5), "wrong-type"),
        ("file_size", json!("10"), "wrong-type"),
        ("file_size", json!(true), "wrong-type"),
        ("file_size", json!((5u64 << 40) + 1), "file-too-large"),
        ("file_size", json!((1u64 << 53) + 1), "file-too-large"),
        ("file_size", json!(u64::MAX), "out-of-range"),
        ("mime_type", json!("video"), "invalid-format"),
        ("mime_type", json!("video/quick time"), "invalid-format"),
        ("mime_type", json!("video/\u{e4}"), "invalid-character"),
        ("mime_type", json!(format!("video/{}", "x".repeat(128))), "too-long"),
        ("mime_type", json!(7), "wrong-type"),
        ("brand_id", json!("main"), "invalid-format"),
        ("brand_id", json!(7), "wrong-type"),
        ("client_reference", json!(long_reference), "too-long"),
        ("client_reference", json!("a\tb"), "invalid-character"),
        ("batch_reference", json!(long_reference), "too-long"),
        ("fingerprint", json!(long_reference), "too-long"),
        ("fingerprint", json!({}), "wrong-type"),
        ("checksum_sha256", json!("ab"), "invalid-format"),
        ("checksum_sha256", json!("xy".repeat(32)), "invalid-format"),
        ("metadata", json!([]), "wrong-type"),
        ("metadata", json!("{}"), "wrong-type"),
        ("metadata", json!({"x": "y".repeat(4096)}), "too-long"),
        ("colour", json!("red"), "unknown-field"),
    ];
    let mut wrong = Vec::new();
    for (field, value, code) in table {
        let mut body = json!({"file_name": "a.txt", "file_size": 10});
        body[field] = value.clone();
        let reply = ann.initiate_with(&body).await;
        let problem = reply.is_problem(422, "validation-failed");
        let expected = (format!("/{field}"), (*code).to_owned());
        let found: Vec<_> =
            problem["errors"].as_array().unwrap().iter().map(|e| (text(&e["pointer"]), text(&e["code"]))).collect();
        if found != [expected] {
            wrong.push(format!("{field} = {}: {found:?} instead of {code}", shortened(value)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    nothing_came_of_it(&ann).await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

async fn all_fields_are_named_at_once(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = json!({"file_size": "ten", "mime_type": "x", "colour": 1, "sound": 2, "client_reference": "\u{1}"});
    let problem = ann.initiate_with(&body).await.is_problem(422, "validation-failed");
    let mut pointers: Vec<String> = problem["errors"].as_array().unwrap().iter().map(|e| text(&e["pointer"])).collect();
    pointers.sort();
    assert_eq!(pointers, ["/client_reference", "/colour", "/file_name", "/file_size", "/mime_type", "/sound"]);

    // Those too that the body's shape alone does not tell: the size that is taken, and the header.
    let huge = (5u64 << 40) + 1;
    let (size, name) = (("/file_size", "file-too-large"), ("/file_name", "wrong-type"));
    let (colour, key) = (("/colour", "unknown-field"), ("Idempotency-Key", "too-long"));
    let long_key = "x".repeat(129);
    let body = json!({"file_name": 7, "file_size": huge, "colour": 1});
    ann.initiate_with_key(&long_key, &body).await.is_invalid(&[size, name, colour, key]);
    let body = json!({"file_name": "a", "file_size": huge});
    ann.initiate_with_key(&long_key, &body).await.is_invalid(&[size, key]);
    let body = json!({"file_name": "a", "file_size": 1});
    ann.initiate_with_key(&long_key, &body).await.is_invalid(&[key]);
    let batch = app
        .send(Method::POST, "/app/uploads/initiate-batch", |request| {
            let request = request.bearer_auth(ann.token()).header("Idempotency-Key", &long_key);
            request.json(&json!({"files": [], "colour": 1}))
        })
        .await;
    batch.is_invalid(&[("/files", "too-short"), colour, key]);

    // Each file of a batch as a file alone.
    let good = json!({"file_name": "a", "file_size": 1, "client_reference": "a"});
    let bad = json!({"file_size": huge, "colour": 1, "client_reference": "a"});
    let answer = ann.initiate_batch(&json!({"files": [good, bad]})).await.is(207);
    let errors = answer["uploads"][1]["problem"]["errors"].as_array().unwrap();
    let mut codes: Vec<String> =
        errors.iter().map(|e| format!("{} {}", text(&e["pointer"]), text(&e["code"]))).collect();
    codes.sort();
    assert_eq!(
        codes,
        [
            "/files/1/client_reference duplicate-reference",
            "/files/1/colour unknown-field",
            "/files/1/file_name required",
            "/files/1/file_size file-too-large",
        ]
    );
    assert_eq!(ann.list("").await.ok()["data"].as_array().unwrap().len(), 1, "the good file alone");
}

async fn bodies_that_are_no_json_are_malformed(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let deep = format!(
        "{{\"file_name\":\"a\",\"file_size\":1,\"metadata\":{}{}}}",
        "{\"a\":".repeat(40) + "1",
        "}".repeat(40)
    );
    let bottomless = "[".repeat(20_000);
    for body in [
        "{",
        "{\"file_name\": \"a\",}",
        "file_name=a",
        "{} {}",
        "{\"file_name\": 'a'}",
        "NaN",
        &deep,
        &bottomless,
        "{\"file_name\": \"\\ud800\", \"file_size\": 1}",
    ] {
        let reply = post_raw(&ann, "/app/uploads/initiate", "application/json", body.to_owned()).await;
        assert_eq!(reply.status, 400, "{}: {reply}", &body[..body.len().min(40)]);
        reply.is_problem(400, "malformed-body");
    }
    let not_utf8 = b"{\"file_name\": \"\xff\", \"file_size\": 1}".to_vec();
    post_raw(&ann, "/app/uploads/initiate", "application/json", not_utf8).await.is_problem(400, "malformed-body");
    // JSON, but not an object.
    for body in ["[]", "7", "null", "\"a\""] {
        let reply = post_raw(&ann, "/app/uploads/initiate", "application/json", body).await;
        assert!([400, 422].contains(&reply.status), "{reply}");
    }
    nothing_came_of_it(&ann).await;
}

async fn other_media_types_are_refused(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let body = "{\"file_name\": \"a\", \"file_size\": 1}";
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "json",
    ] {
        post_raw(&ann, "/app/uploads/initiate", media_type, body).await.is_problem(415, "unsupported-media-type");
    }
    for encoding in ["gzip", "br", "deflate"] {
        let reply = app
            .send(Method::POST, "/app/uploads/initiate", |request| {
                let request = request.bearer_auth(ann.token()).header("Content-Type", "application/json");
                request.header("Content-Encoding", encoding).body(body)
            })
            .await;
        reply.is_problem(415, "unsupported-media-type");
    }
    nothing_came_of_it(&ann).await;
    post_raw(&ann, "/app/uploads/initiate", "application/json; charset=utf-8", body).await.created();
}

async fn large_bodies_are_cut_off(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let session = ann.initiate("reel.mov", 6 * MIB).await;
    let part_urls = format!("/app/uploads/{}/multipart-part-urls", session.id);
    for (path, limit) in [
        ("/app/uploads/initiate", 64 << 10),
        ("/app/uploads/initiate-batch", 8 << 20),
        ("/app/assets/upload/complete", 2 << 20),
        ("/app/assets/upload/complete-batch", 8 << 20),
        (part_urls.as_str(), 2 << 20),
    ] {
        let padded = |length: usize| format!("{{\"x\":\"{}\"}}", "x".repeat(length - 8));
        let reply = post_raw(&ann, path, "application/json", padded(limit + 1)).await;
        reply.is_problem(413, "body-too-large");
        // Without a length announced, too.
        let chunks = padded(limit + 1)
            .into_bytes()
            .chunks(60_000)
            .map(|c| Ok::<_, std::io::Error>(c.to_vec()))
            .collect::<Vec<_>>();
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        post_raw(&ann, path, "application/json", stream).await.is_problem(413, "body-too-large");
        // A body of exactly the limit is read, and found wrong for what it says.
        post_raw(&ann, path, "application/json", padded(limit)).await.is_problem(422, "validation-failed");
    }
    assert_eq!(ann.session(&session).await.ok()["version"], 2);
}

async fn slow_clients_are_let_go(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_SERVER__HEAD_TIMEOUT_SECS", "1"), ("QUAYMASTER_SERVER__BODY_TIMEOUT_SECS", "1")])
        .await;
    let ann = app.tenant("acme").user("ann");
    let address = app.url("").trim_start_matches("http://").to_owned();
    let head = format!(
        "POST /app/uploads/initiate HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"file_name\":",
        ann.token()
    );
    for sent in [head.as_str(), "POST /app/uploads/initiate HTTP/1.1\r\nHost: x\r\n"] {
        let mut slow = TcpStream::connect(&address).await.unwrap();
        slow.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut answer)).await;
        ended.expect("the server lets go of a slow client").unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    }
    nothing_came_of_it(&ann).await;
}

async fn ids_have_one_spelling(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    let simple = note.id.replace('-', "");
    let braced = format!("%7B{}%7D", note.id);
    let urn = format!("urn:uuid:{}", note.id);
    for id in ["x", "0", "%00", "..%2F..", "%F0%9F%8E%AC", &simple, &braced, &urn, &"a".repeat(4000)] {
        for path in [format!("/app/uploads/{id}"), format!("/app/uploads/{id}/events"), format!("/app/assets/{id}")] {
            ann.get(&path).await.is_problem(404, "not-found");
        }
        ann.post(&format!("/app/uploads/{id}/cancel"), &json!({})).await.is_problem(404, "not-found");
    }
    for id in ["x", "", simple.as_str(), urn.as_str()] {
        ann.complete_with(&json!({"upload_session_id": id}))
            .await
            .is_invalid(&[("/upload_session_id", "invalid-format")]);
    }
    assert_eq!(ann.status(&note).await, "UPLOADING");
}

async fn u0000_is_refused_everywhere(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for field in
        ["file_name", "mime_type", "client_reference", "batch_reference", "fingerprint", "checksum_sha256", "brand_id"]
    {
        let mut body = json!({"file_name": "a", "file_size": 1});
        body[field] = json!("a\0b");
        ann.initiate_with(&body).await.is_problem(422, "validation-failed");
    }
    for metadata in [json!({"a": "b\0"}), json!({"a\0": 1}), json!({"a": [{"b": ["\0"]}]})] {
        ann.initiate_with(&json!({"file_name": "a", "file_size": 1, "metadata": metadata}))
            .await
            .is_problem(422, "validation-failed");
        let complete = json!({"upload_session_id": uuid::Uuid::now_v7(), "metadata": metadata});
        ann.complete_with(&complete).await.is_problem(422, "validation-failed");
    }
    ann.complete_with(&json!({"upload_session_id": uuid::Uuid::now_v7(), "title": "\0"}))
        .await
        .is_problem(422, "validation-failed");
    for query in ["created_by=%00", "batch_reference=a%00", "fingerprint=%00b", "status=%00", "limit=%00"] {
        let reply = ann.list(query).await;
        assert!(reply.status == 422 || reply.json()["data"] == json!([]), "{query}: {reply}");
    }
    ann.batch("a%00b").await.is_problem(404, "not-found");
    let key = app
        .send(Method::POST, "/app/uploads/initiate", |request| {
            let value = reqwest::header::HeaderValue::from_bytes(b"caf\xc3\xa9").unwrap();
            request
                .bearer_auth(ann.token())
                .header("Idempotency-Key", value)
                .json(&json!({"file_name": "a", "file_size": 1}))
        })
        .await;
    key.is_problem(422, "validation-failed");
    nothing_came_of_it(&ann).await;
}

async fn complete_checks_its_fields(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    let with = |field: &str, value: Value| {
        let mut body = json!({"upload_session_id": note.id});
        body[field] = value;
        body
    };
    ann.complete_with(&json!({})).await.is_invalid(&[("/upload_session_id", "required")]);
    ann.complete_with(&with("title", json!("x".repeat(256)))).await.is_invalid(&[("/title", "too-long")]);
    ann.complete_with(&with("title", json!(7))).await.is_invalid(&[("/title", "wrong-type")]);
    ann.complete_with(&with("metadata", json!("x"))).await.is_invalid(&[("/metadata", "wrong-type")]);
    ann.complete_with(&with("colour", json!(1))).await.is_invalid(&[("/colour", "unknown-field")]);
    ann.complete_with(&with("parts", json!("all"))).await.is_invalid(&[("/parts", "wrong-type")]);
    let parts = json!([{"part_number": 1, "etag": "a"}, {"part_number": "2", "colour": 1}]);
    let problem = ann.complete_with(&with("parts", parts)).await.is_problem(422, "validation-failed");
    let mut pointers: Vec<String> = problem["errors"].as_array().unwrap().iter().map(|e| text(&e["pointer"])).collect();
    pointers.sort();
    assert_eq!(pointers, ["/parts/1/colour", "/parts/1/etag", "/parts/1/part_number"]);
    assert_eq!(ann.status(&note).await, "UPLOADING");
    ann.complete(&note).await.created();
}
