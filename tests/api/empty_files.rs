//! A file of no bytes is a file: one empty PUT, and all that comes after it.

use serde_json::{Value, json};

use crate::kit::{TestApp, Upload, stories};
use crate::promote::promoted;

stories![an_empty_file_becomes_an_asset, a_profile_may_refuse_small_files, push_sends_empty_files];

/// SHA-256 of nothing.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async fn an_empty_file_becomes_an_asset(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    app.operator("ola").patch("/admin/tenants/acme", &json!({"quota_bytes": 0})).await.ok();
    let body = json!({"file_name": ".gitkeep", "file_size": 0, "checksum_sha256": NOTHING});
    let empty = Upload::new(ann.initiate_with(&body).await.created());
    assert_eq!((&empty.session["upload_type"], &empty.session["file_size"]), (&json!("direct"), &json!(0)));

    // Nothing to send is not the same as nothing sent.
    ann.complete(&empty).await.is_problem(409, "upload-incomplete");
    let status = ann.send_to(&empty.session, b"x".to_vec()).await;
    assert!((400..500).contains(&status), "one byte is taken for none: {status}");
    assert_eq!(ann.send(&empty).await, 200);
    let resume = ann.resume(&empty).await.ok();
    assert_eq!((&resume["can_resume"], &resume["uploaded_bytes"]), (&json!(true), &json!(0)));
    let asset = ann.complete(&empty).await.created();
    assert_eq!((&asset["file_size"], &asset["checksum_sha256"]), (&json!(0), &json!(NOTHING)));
    assert_eq!(ann.complete(&empty).await.ok(), asset);

    promoted(&app, &ann, &empty).await.unwrap();
    let id = asset["asset_id"].as_str().unwrap();
    let place = ann.get(&format!("/app/assets/{id}/download?redirect=false")).await.ok();
    let file = app.http.get(place["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(file.status(), 200);
    assert_eq!(file.headers()["content-length"], "0");
    assert!(file.bytes().await.unwrap().is_empty());

    let receipt = ann.get(&format!("/app/uploads/{}/receipt", empty.id)).await.ok();
    assert_eq!(
        (&receipt["receipt"]["file_size"], &receipt["receipt"]["asset"]["file_size"]),
        (&json!(0), &Value::Null)
    );
    let usage = app.usage(&app.tenant("acme")).await;
    assert_eq!((usage.live_sessions, usage.bytes), (0, 0));
    // It takes nothing of a quota of none, and a byte does.
    ann.initiate_with(&json!({"file_name": "a", "file_size": 1})).await.is_problem(409, "quota-exceeded");
}

async fn a_profile_may_refuse_small_files(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_UPLOADS__DEFAULT__MIN_FILE_BYTES", "10")]).await;
    let ann = app.tenant("acme").user("ann");
    for small in [0, 9] {
        let file = json!({"file_name": "a", "file_size": small});
        ann.initiate_with(&file).await.is_invalid(&[("/file_size", "file-too-small")]);
        let batch = ann.initiate_batch(&json!({"files": [file, {"file_name": "b", "file_size": 10}]})).await.is(207);
        assert_eq!(batch["uploads"][0]["problem"]["errors"][0]["code"], "file-too-small");
    }
    ann.initiate_with(&json!({"file_name": "a", "file_size": -1})).await.is_invalid(&[("/file_size", "out-of-range")]);
    ann.initiate("a", 10).await;
}

async fn push_sends_empty_files(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let folder = app.folder.path().join("to-push");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("empty.txt"), "").unwrap();
    std::fs::write(folder.join("full.txt"), "hello").unwrap();
    let (server, token) = (app.url(""), ann.token());
    let words = ["push", folder.to_str().unwrap(), "--server", &server, "--token", &token, "--json"];
    for result in ["uploaded", "already"] {
        let output = app.command(&words).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let sizes: Vec<_> = lines[..2].iter().map(|line| line["asset"]["file_size"].as_u64().unwrap()).collect();
        assert_eq!(sizes, [0, 5]);
        for line in &lines[..2] {
            assert_eq!((&line["result"], &line["verified"]), (&json!(result), &json!("sha256")), "{line}");
        }
    }
}
