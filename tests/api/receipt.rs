//! Receipts: what they say, and that they cannot be made or changed by anybody else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Value, json};

use crate::kit::{Actor, MIB, Reply, TestApp, Upload, stories};

stories![
    it_attests_how_each_upload_ended,
    anybody_can_verify_it_with_the_public_key,
    there_is_none_before_the_end,
    the_command_knows_a_true_one_from_a_forged_one,
];

async fn receipt(ann: &Actor, upload: &Upload) -> Reply {
    ann.get(&format!("/app/uploads/{}/receipt", upload.id)).await
}

async fn keys(app: &TestApp) -> Value {
    app.send(reqwest::Method::GET, "/.well-known/quaymaster-keys.json", |request| request).await.ok()
}

async fn completed(ann: &Actor) -> (Upload, Value) {
    let body = json!({"file_name": "note.txt", "file_size": 10, "batch_reference": "b", "client_reference": "row-1"});
    let note = Upload::new(ann.initiate_with(&body).await.created());
    assert_eq!(ann.send(&note).await, 200);
    let asset = ann.complete(&note).await.created();
    (note, asset)
}

async fn it_attests_how_each_upload_ended(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann");
    let (note, asset) = completed(&ann).await;
    let attested = receipt(&ann, &note).await.ok()["receipt"].clone();
    let events = ann.get(&format!("/app/uploads/{}/events", note.id)).await.ok();
    assert_eq!(attested["chain_mac"].as_str().unwrap().len(), 64);
    assert_eq!(
        attested,
        json!({
            "iss": "quaymaster", "issued_at": attested["issued_at"],
            "upload_session_id": note.id, "tenant_id": acme.id, "brand_id": acme.brand("main"), "created_by": "ann",
            "client_reference": "row-1", "batch_reference": "b",
            "file_name": "note.txt", "file_size": 10, "mime_type": "application/octet-stream",
            "status": "COMPLETED", "failure_reason": null,
            "asset_id": asset["asset_id"], "etag": asset["etag"],
            "checksum_sha256": null, "checksum_verified": false,
            "created_at": note.session["created_at"], "opened_at": events["data"][1]["at"],
            "completed_at": asset["created_at"], "failed_at": null, "cancelled_at": null,
            "events": 3, "chain_mac": attested["chain_mac"],
        })
    );

    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.cancel(&reel).await.ok();
    let attested = receipt(&ann, &reel).await.ok()["receipt"].clone();
    assert_eq!((&attested["status"], &attested["asset_id"]), (&json!("CANCELLED"), &Value::Null));
    assert!(attested["cancelled_at"].is_string());

    let lost = ann.initiate("lost.mov", 6 * MIB).await;
    app.store.abort(&lost.key(), lost.upload_id()).await;
    ann.complete(&lost).await.is_problem(409, "illegal-transition");
    let attested = receipt(&ann, &lost).await.ok()["receipt"].clone();
    assert_eq!((&attested["status"], &attested["failure_reason"]), (&json!("FAILED"), &json!("storage_error")));
}

/// With another implementation than the one that signed.
async fn anybody_can_verify_it_with_the_public_key(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (note, _) = completed(&ann).await;
    let answer = receipt(&ann, &note).await.ok();
    let set = keys(&app).await;
    let [key] = set["keys"].as_array().unwrap().as_slice() else { panic!("{set}") };
    let named = |name: &str| key[name].as_str().unwrap();
    assert_eq!((named("kty"), named("crv"), named("alg"), named("use")), ("OKP", "Ed25519", "EdDSA", "sig"));

    let jws = answer["jws"].as_str().unwrap();
    let (message, signature) = jws.rsplit_once('.').unwrap();
    let public = DecodingKey::from_ed_components(named("x")).unwrap();
    assert!(crypto::verify(signature, message.as_bytes(), &public, Algorithm::EdDSA).unwrap());
    let part = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    assert_eq!(part(header), json!({"alg": "EdDSA", "kid": named("kid"), "typ": "quaymaster-receipt+jws"}));
    assert_eq!(part(claims), answer["receipt"]);

    // The key is the deployment's: the same after a restart.
    app.stop_server().await;
    app.start_server().await;
    assert_eq!(keys(&app).await, set);
    // And a receipt is no token.
    let reply = app.send(reqwest::Method::GET, "/app/uploads", |request| request.bearer_auth(jws)).await;
    reply.is_problem(401, "unauthenticated");
}

async fn there_is_none_before_the_end(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    let problem = receipt(&ann, &note).await.is_problem(409, "illegal-transition");
    assert_eq!(problem["upload_status"], "UPLOADING");
    ann.cancel(&note).await.ok();
    receipt(&ann, &note).await.ok();
    for stranger in [app.tenant("globex").user("ann"), app.tenant("acme").user("bob").permissions(&["uploads.view"])] {
        receipt(&stranger, &note).await.is_problem(404, "not-found");
    }
}

async fn the_command_knows_a_true_one_from_a_forged_one(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (note, _) = completed(&ann).await;
    let answer = receipt(&ann, &note).await.ok();
    let keys = keys(&app).await;
    // Nobody is asked: neither the server nor its database.
    app.stop_server().await;
    app.database.cut().await;
    let write = |name: &str, text: &str| {
        let path = app.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let verify = async |words: &[&str]| {
        let output = app.command(&[&["receipt", "verify"], words].concat()).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let attested = |said: (Option<i32>, String, String)| {
        assert_eq!(said.0, Some(0), "{said:?}");
        serde_json::from_str::<Value>(&said.1).unwrap()
    };
    let whole = write("receipt.json", &answer.to_string());
    let bare = write("receipt.jws", answer["jws"].as_str().unwrap());
    let known = write("keys.json", &keys.to_string());
    for words in [&[whole.as_str()][..], &[bare.as_str()], &[whole.as_str(), "--keys", &known]] {
        assert_eq!(attested(verify(words).await), answer["receipt"], "{words:?}");
    }

    let mut altered = answer.clone();
    altered["receipt"]["file_name"] = json!("other.txt");
    let altered = write("altered.json", &altered.to_string());
    let mut forged: Vec<String> = answer["jws"].as_str().unwrap().split('.').map(str::to_owned).collect();
    let claims = json!({"iss": "quaymaster", "file_name": "other.txt"});
    forged[1] = URL_SAFE_NO_PAD.encode(claims.to_string());
    let forged = write("forged.jws", &forged.join("."));
    let nothing = write("nothing.json", "{}");
    let no_keys = write("no-keys.json", r#"{"keys": []}"#);
    for (words, says) in [
        (&[altered.as_str()][..], "was changed"),
        (&[forged.as_str()], "forged"),
        (&[nothing.as_str()], "not a receipt"),
        (&["/nowhere/receipt.json"], "cannot read"),
        (&[whole.as_str(), "--keys", &no_keys], "not among those"),
    ] {
        let (code, out, err) = verify(words).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{words:?}");
        assert!(err.contains(says), "{words:?}: {err}");
    }
    app.database.heal().await;
    app.start_server().await;
}
