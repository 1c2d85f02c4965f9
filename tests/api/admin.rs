//! Operators in every tenant, managers in their own.

use serde_json::{Value, json};

use crate::kit::{Actor, CHUNK, Fault, MIB, TestApp, Upload, stories};

stories![
    an_operator_lists_any_tenants_uploads,
    a_manager_lists_their_own_tenant_alone,
    an_upload_is_shown_from_all_sides,
    a_store_that_is_away_is_shown_not_answered,
    an_upload_is_failed_by_hand,
    an_upload_is_cancelled_by_an_operator,
    nobody_else_gets_in,
    a_reason_is_checked,
];

fn ids(page: &Value) -> Vec<&str> {
    let data = page["data"].as_array().unwrap_or_else(|| panic!("no page: {page}"));
    data.iter().map(|session| session["upload_session_id"].as_str().unwrap()).collect()
}

fn manager(app: &TestApp) -> Actor {
    app.tenant("acme").user("mia").permissions(&["uploads.manage", "uploads.view", "uploads.cancel", "assets.view"])
}

async fn an_operator_lists_any_tenants_uploads(app: TestApp) {
    let (acme, ola) = (app.tenant("acme"), app.operator("ola"));
    let first = acme.user("ann").initiate("a", 1).await;
    let second = acme.user("bob").brands(&["second"]).initiate("b", 1).await;
    let foreign = app.tenant("globex").user("gil").initiate("g", 1).await;
    acme.user("ann").cancel(&first).await.ok();

    let by_slug = ola.get("/admin/uploads?tenant=acme").await.ok();
    assert_eq!(ids(&by_slug), [&second.id, &first.id], "in every brand, of every user");
    assert_eq!(ola.get(&format!("/admin/uploads?tenant={}", acme.id)).await.ok(), by_slug);
    assert_eq!(ids(&ola.get("/admin/uploads?tenant=globex").await.ok()), [&foreign.id]);
    assert_eq!(ids(&ola.get("/admin/uploads?tenant=acme&created_by=ann").await.ok()), [&first.id]);
    assert_eq!(ids(&ola.get("/admin/uploads?tenant=acme&status=UPLOADING,FAILED").await.ok()), [&second.id]);
    let brand = acme.brand("second");
    assert_eq!(ids(&ola.get(&format!("/admin/uploads?tenant=acme&brand_id={brand}")).await.ok()), [&second.id]);
    let page = ola.get("/admin/uploads?tenant=acme&limit=1").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = ola.get(&format!("/admin/uploads?tenant=acme&limit=1&cursor={cursor}")).await.ok();
    assert_eq!((ids(&page), ids(&rest)), (vec![second.id.as_str()], vec![first.id.as_str()]));
    assert_eq!(rest["next_cursor"], Value::Null);

    ola.get("/admin/uploads").await.is_invalid(&[("?tenant", "required")]);
    ola.get("/admin/uploads?tenant=acme&colour=red&limit=0")
        .await
        .is_invalid(&[("?colour", "unknown-field"), ("?limit", "out-of-range")]);
    ola.get("/admin/uploads?tenant=acme&status=DONE").await.is_invalid(&[("?status", "invalid-format")]);
    for unknown in ["nobody", "ACME", "%00", "a%27b", &uuid::Uuid::now_v7().to_string()] {
        ola.get(&format!("/admin/uploads?tenant={unknown}")).await.is_problem(404, "not-found");
    }
    // An operator is nobody's user.
    ola.get("/app/uploads").await.is_problem(403, "permission-denied");
    ola.initiate_with(&json!({"file_name": "a", "file_size": 1})).await.is_problem(403, "permission-denied");
}

async fn a_manager_lists_their_own_tenant_alone(app: TestApp) {
    let acme = app.tenant("acme");
    let first = acme.user("ann").initiate("a", 1).await;
    let second = acme.user("bob").brands(&["second"]).initiate("b", 1).await;
    app.tenant("globex").user("gil").initiate("g", 1).await;
    let mia = manager(&app);
    for query in ["", "?tenant=acme", &format!("?tenant={}", acme.id)] {
        assert_eq!(ids(&mia.get(&format!("/admin/uploads{query}")).await.ok()), [&first.id], "one brand, {query}");
    }
    assert_eq!(ids(&mia.clone().all_brands().get("/admin/uploads").await.ok()), [&second.id, &first.id]);
    let (foreign, none) =
        (mia.get("/admin/uploads?tenant=globex").await, mia.get("/admin/uploads?tenant=nobody").await);
    let mut bodies = [foreign.is_problem(404, "not-found"), none.is_problem(404, "not-found")];
    bodies.iter_mut().for_each(|body| drop(body["instance"].take()));
    assert_eq!(bodies[0], bodies[1]);
    // A token of both is an operator's.
    let both = mia.permissions(&["uploads.manage", "operator"]);
    both.get("/admin/uploads").await.is_invalid(&[("?tenant", "required")]);
    assert_eq!(ids(&both.get("/admin/uploads?tenant=globex").await.ok()).len(), 1);
}

async fn an_upload_is_shown_from_all_sides(app: TestApp) {
    let (acme, ola) = (app.tenant("acme"), app.operator("ola"));
    let ann = acme.user("ann");
    let reel = ann.initiate("reel.mov", CHUNK + 7).await;
    ann.put_part(&reel, 2).await;
    let path = format!("/admin/uploads/{}?tenant=acme", reel.id);
    let before = ann.session(&reel).await.ok();
    let shown = ola.get(&path).await.ok();
    for (member, value) in before.as_object().unwrap() {
        assert_eq!(&shown[member], value, "{member}");
    }
    assert_eq!(shown["tenant_id"], json!(acme.id));
    assert_eq!(shown["bucket"], json!(app.store.bucket));
    assert_eq!((&shown["asset"], &shown["storage_cleared_at"]), (&Value::Null, &Value::Null));
    let events = ann.get(&format!("/app/uploads/{}/events", reel.id)).await.ok();
    assert_eq!(shown["events"], events["data"]);
    let store = json!({"answered": true, "error": null, "parts": 1, "part_bytes": 7, "object_bytes": null});
    assert_eq!(shown["store"], store);
    // To look is no activity.
    app.advance(chrono::TimeDelta::hours(1));
    assert_eq!(ola.get(&path).await.ok(), shown);
    assert_eq!(ann.session(&reel).await.ok(), before);

    ann.put_part(&reel, 1).await;
    let asset = ann.complete(&reel).await.created();
    let shown = ola.get(&path).await.ok();
    assert_eq!(shown["asset"], asset);
    let store = json!({"answered": true, "error": null, "parts": 0, "part_bytes": 0, "object_bytes": CHUNK + 7});
    assert_eq!(shown["store"], store);
    let mut seen = shown.clone();
    seen["bucket"] = Value::Null;
    assert_eq!(manager(&app).get(&format!("/admin/uploads/{}", reel.id)).await.ok(), seen, "all but where it lies");

    assert_eq!(ola.get(&format!("/admin/uploads/{}", reel.id)).await.ok(), shown, "whoever's it is");
    ola.get("/admin/uploads/x?colour=red").await.is_invalid(&[("?colour", "unknown-field")]);
    for path in [
        format!("/admin/uploads/{}?tenant=globex", reel.id),
        format!("/admin/uploads/{}?tenant=acme", uuid::Uuid::now_v7()),
        format!("/admin/uploads/{}", uuid::Uuid::now_v7()),
        "/admin/uploads/x?tenant=acme".to_owned(),
    ] {
        ola.get(&path).await.is_problem(404, "not-found");
    }
}

async fn a_store_that_is_away_is_shown_not_answered(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    app.store.faults().order_all(Fault::DropRequest);
    let shown = app.operator("ola").get(&format!("/admin/uploads/{}?tenant=acme", reel.id)).await.ok();
    app.store.heal();
    assert_eq!(shown["status"], "UPLOADING");
    assert_eq!(shown["events"].as_array().unwrap().len(), 2);
    assert_eq!(shown["store"]["answered"], false);
    let error = shown["store"]["error"].as_str().unwrap();
    assert!(error.contains("ListParts") && !error.contains("http"), "{error}");
    assert_eq!(shown["store"]["parts"], Value::Null);
}

async fn history(app: &TestApp, upload: &Upload) -> Value {
    let path = format!("/admin/uploads/{}?tenant=acme", upload.id);
    app.operator("ola").get(&path).await.ok()["events"].clone()
}

async fn an_upload_is_failed_by_hand(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    ann.put_part(&reel, 1).await;
    let path = format!("/admin/uploads/{}/fail?tenant=acme", reel.id);
    let body = json!({"reason_text": "Sie dürfen das nicht 🚫"});
    let failed = ola.post(&path, &body).await.ok();
    assert_eq!((&failed["status"], &failed["failure_reason"]), (&json!("FAILED"), &json!("operator")));
    assert!(app.store.uploads().await.is_empty(), "what was sent is gone at once");
    let events = history(&app, &reel).await;
    let last = &events[2];
    assert_eq!((&last["event"], &last["actor"], &last["reason"]), (&json!("fail"), &json!("ola"), &json!("operator")));
    assert_eq!(last["actor_kind"], "operator");
    assert_eq!(last["details"], json!({"note": "Sie dürfen das nicht 🚫"}));
    // Again: the same, and no second event, whoever asks.
    assert_eq!(ola.post(&path, &json!({"reason_text": "again"})).await.ok(), failed);
    assert_eq!(history(&app, &reel).await, events);
    ann.complete(&reel).await.is_problem(409, "illegal-transition");
    ann.put_part_is_refused(&reel).await;

    // A manager may, in their own tenant and brands.
    let note = ann.initiate("note.txt", 1).await;
    let path = format!("/admin/uploads/{}/fail", note.id);
    manager(&app).brands(&["second"]).post(&path, &body).await.is_problem(404, "not-found");
    app.tenant("globex").user("gil").all_brands().post(&path, &body).await.is_problem(404, "not-found");
    assert_eq!(manager(&app).post(&path, &body).await.ok()["status"], "FAILED");
    let by_manager = &history(&app, &note).await[2];
    assert_eq!((&by_manager["actor"], &by_manager["actor_kind"]), (&json!("mia"), &json!("user")));

    // What has ended otherwise stays.
    let kept = ann.initiate("kept", 1).await;
    assert_eq!(ann.send(&kept).await, 200);
    ann.complete(&kept).await.created();
    let dropped = ann.initiate("dropped", 1).await;
    ann.cancel(&dropped).await.ok();
    for (upload, status) in [(&kept, "COMPLETED"), (&dropped, "CANCELLED")] {
        let path = format!("/admin/uploads/{}/fail?tenant=acme", upload.id);
        let problem = ola.post(&path, &body).await.is_problem(409, "illegal-transition");
        assert_eq!(problem["upload_status"], status);
    }
}

impl Actor {
    async fn put_part_is_refused(&self, upload: &Upload) {
        self.part_url(upload, 1).await.is_problem(409, "illegal-transition");
    }
}

async fn an_upload_is_cancelled_by_an_operator(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    let path = format!("/admin/uploads/{}/cancel?tenant=acme", reel.id);
    let cancelled = ola.post(&path, &json!({})).await.ok();
    assert_eq!(cancelled["status"], "CANCELLED");
    let by_operator = &history(&app, &reel).await[2];
    assert_eq!((&by_operator["actor"], &by_operator["actor_kind"]), (&json!("ola"), &json!("operator")));
    assert_eq!(ola.post(&path, &json!({})).await.ok(), cancelled);
    let note = ann.initiate("note.txt", 1).await;
    let path = format!("/admin/uploads/{}/cancel", note.id);
    app.tenant("globex").user("gil").all_brands().post(&path, &json!({})).await.is_problem(404, "not-found");
    assert_eq!(manager(&app).post(&path, &json!({})).await.ok()["status"], "CANCELLED");
    ola.post(&path, &json!({"why": 1})).await.is_invalid(&[("/why", "unknown-field")]);
}

async fn nobody_else_gets_in(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    let plain = ann.clone().permissions(&["uploads.create", "uploads.view", "uploads.cancel", "assets.view"]);
    let routes = ["/admin/uploads", &format!("/admin/uploads/{}", reel.id), "/admin/tenants/acme", "/admin/tenants"];
    for path in routes {
        plain.get(path).await.is_problem(403, "permission-denied");
        // Everything but operator is still not enough for what is of all tenants.
        app.operator("ola").with("permissions", json!([])).get(path).await.is_problem(401, "unauthenticated");
    }
    ann.get("/admin/tenants").await.is_problem(403, "permission-denied");
    let ghost = manager(&app).with("tenant_id", json!(uuid::Uuid::now_v7()));
    ghost.get("/admin/uploads").await.is_problem(403, "permission-denied");
    ghost.get("/admin/tenants/acme").await.is_problem(403, "permission-denied");
    assert_eq!(ann.status(&reel).await, "UPLOADING");
}

async fn a_reason_is_checked(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    let path = format!("/admin/uploads/{}/fail?tenant=acme", reel.id);
    for (text, code) in [
        (Value::Null, "required"),
        (json!(7), "wrong-type"),
        (json!(""), "too-short"),
        (json!("é".repeat(501)), "too-long"),
        (json!("two\nlines"), "invalid-character"),
        (json!("nul\0"), "invalid-character"),
    ] {
        ola.post(&path, &json!({"reason_text": text})).await.is_invalid(&[("/reason_text", code)]);
    }
    assert_eq!(ann.status(&reel).await, "UPLOADING");
    assert_eq!(ola.post(&path, &json!({"reason_text": "é".repeat(500)})).await.ok()["status"], "FAILED");
}
