use serde_json::{Value, json};

use crate::kit::{Actor, MIB, Reply, TestApp, Upload, stories};

stories![
    nobody_can_tell_a_foreign_session_from_none,
    nobody_can_tell_a_foreign_asset_from_none,
    a_tenant_that_is_not_here_is_refused,
    one_tenants_bytes_stay_out_of_anothers_session,
];

/// Every route that takes a session's id, asked about one.
async fn ask_about(actor: &Actor, id: &str) -> Vec<Reply> {
    let upload = Upload { id: id.to_owned(), session: Value::Null, bytes: Vec::new() };
    vec![
        actor.session(&upload).await,
        actor.resume(&upload).await,
        actor.activity(&upload).await,
        actor.cancel(&upload).await,
        actor.complete(&upload).await,
        actor.part_url(&upload, 1).await,
        actor.part_urls(&upload, &json!({"from": 1, "to": 1})).await,
        actor.get(&format!("/app/uploads/{id}/events")).await,
    ]
}

/// The answer but for what belongs to this one request.
fn without_instance(reply: &Reply) -> Value {
    let mut body = reply.is_problem(404, "not-found");
    body["instance"].take();
    body
}

async fn nobody_can_tell_a_foreign_session_from_none(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    let before = ann.session(&reel).await.ok();

    let strangers = [
        acme.user("bob").permissions(&["uploads.create", "uploads.view", "uploads.cancel", "assets.create"]),
        acme.user("ann").brands(&["second"]),
        acme.user("boss").brands(&[]),
        app.tenant("globex").user("ann"),
        app.tenant("globex").user("ann").all_brands(),
    ];
    let unknown = uuid::Uuid::now_v7().to_string();
    for stranger in &strangers {
        let (foreign, none) = (ask_about(stranger, &reel.id).await, ask_about(stranger, &unknown).await);
        for (foreign, none) in foreign.iter().zip(&none) {
            assert_eq!(without_instance(foreign), without_instance(none), "{foreign}");
            assert_eq!(foreign.body.len(), none.body.len(), "{foreign}");
        }
    }
    assert_eq!(ann.session(&reel).await.ok(), before);

    let boss = acme.user("boss").permissions(&["uploads.view", "uploads.manage"]);
    assert_eq!(boss.session(&reel).await.ok(), before);
}

async fn nobody_can_tell_a_foreign_asset_from_none(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann");
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    let asset = ann.complete(&note).await.created();
    let path = format!("/app/assets/{}", asset["asset_id"].as_str().unwrap());
    let unknown = format!("/app/assets/{}", uuid::Uuid::now_v7());
    for stranger in [acme.user("ann").brands(&["second"]), app.tenant("globex").user("ann").all_brands()] {
        let (foreign, none) = (stranger.get(&path).await, stranger.get(&unknown).await);
        assert_eq!(without_instance(&foreign), without_instance(&none));
    }
    // Within the brand an asset is everyone's.
    assert_eq!(acme.user("bob").permissions(&["assets.view"]).get(&path).await.ok(), asset);
}

async fn a_tenant_that_is_not_here_is_refused(app: TestApp) {
    let ghost = app.tenant("acme").user("ann").with("tenant_id", json!(uuid::Uuid::now_v7()));
    ghost.list("").await.is_problem(403, "permission-denied");
    ghost.get("/app/brands").await.is_problem(403, "permission-denied");
    ghost.initiate_with(&json!({"file_name": "a", "file_size": 1})).await.is_problem(403, "permission-denied");
}

async fn one_tenants_bytes_stay_out_of_anothers_session(app: TestApp) {
    let (ann, gil) = (app.tenant("acme").user("ann"), app.tenant("globex").user("gil"));
    let (anns, gils) = (ann.initiate("a.mov", 6 * MIB).await, gil.initiate("g.mov", 6 * MIB).await);
    ann.send_all_parts(&anns).await;
    // Gil's URL with Ann's key and upload id in it: the signature covers both.
    let mut url = gil.part_url(&gils, 1).await.ok();
    let moved = url["upload_url"].as_str().unwrap().replace(&gils.id, &anns.id);
    url["upload_url"] = json!(moved.clone());
    assert!((400..500).contains(&gil.send_to(&url, gils.part(1).to_vec()).await));
    url["upload_url"] = json!(moved.replace(gils.upload_id(), anns.upload_id()));
    assert!((400..500).contains(&gil.send_to(&url, gils.part(1).to_vec()).await));
    ann.complete(&anns).await.created();
    assert!(app.store.read(&anns.key()).await == anns.bytes);
}
