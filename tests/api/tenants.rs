//! Tenants as operators see them, and what each one does by day.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::kit::{Actor, MIB, TestApp, stories};

stories![
    a_suspended_tenant_opens_nothing_and_finishes_what_runs,
    tenants_are_listed_page_by_page,
    a_tenant_is_made_and_given_brands,
    a_manager_sees_their_own_tenant_alone,
    days_tell_what_happened,
    a_span_is_checked,
];

async fn a_suspended_tenant_opens_nothing_and_finishes_what_runs(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    let keyed = json!({"file_name": "a", "file_size": 1, "batch_reference": "b", "client_reference": "row-1"});
    let open = ann.initiate_with_key("k", &keyed).await.created();
    let cancelled = ann.initiate("c", 1).await;

    let suspended = ola.patch("/admin/tenants/acme", &json!({"suspended": true})).await.ok();
    let since = suspended["suspended_at"].as_str().unwrap().to_owned();
    app.advance(TimeDelta::minutes(5));
    let again = ola.patch("/admin/tenants/acme", &json!({"suspended": true})).await.ok();
    assert_eq!(again["suspended_at"], since, "it is suspended since the first time");

    ann.initiate_with(&json!({"file_name": "x", "file_size": 1})).await.is_problem(409, "tenant-suspended");
    let batch = json!({"batch_reference": "b", "files": [
        {"file_name": "a", "file_size": 1, "client_reference": "row-1"},
        {"file_name": "n", "file_size": 1, "client_reference": "row-2"},
    ]});
    let answer = ann.initiate_batch(&batch).await.is(207);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(1)));
    assert_eq!(answer["uploads"][0]["upload"]["upload_session_id"], open["upload_session_id"]);
    assert_eq!(answer["uploads"][1]["problem"]["code"], "tenant-suspended");
    assert_eq!(ann.initiate_with_key("k", &keyed).await.ok()["upload_session_id"], open["upload_session_id"]);
    assert_eq!(ann.list("").await.ok()["data"].as_array().unwrap().len(), 3, "nothing of those refused is stored");
    app.tenant("globex").user("gil").initiate("g", 1).await;

    // What runs goes on to its end.
    ann.send_all_parts(&reel).await;
    assert_eq!(ann.resume(&reel).await.ok()["can_resume"], true);
    ann.complete(&reel).await.created();
    ann.cancel(&cancelled).await.ok();

    let resumed = ola.patch("/admin/tenants/acme", &json!({"suspended": false})).await.ok();
    assert_eq!(resumed["suspended_at"], Value::Null);
    ann.initiate("x", 1).await;
}

async fn tenants_are_listed_page_by_page(app: TestApp) {
    let ola = app.operator("ola");
    app.tenant("acme").user("ann").initiate("a", 7).await;
    for slug in ["initech", "hooli"] {
        ola.post("/admin/tenants", &json!({"slug": slug})).await.created();
    }
    let all = ola.get("/admin/tenants").await.ok();
    let slugs = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|tenant| tenant["slug"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(slugs(&all), ["acme", "globex", "hooli", "initech"]);
    assert_eq!(all["next_cursor"], Value::Null);
    assert_eq!((&all["data"][0]["live_sessions"], &all["data"][0]["bytes"]), (&json!(1), &json!(7)));
    assert_eq!((&all["data"][1]["live_sessions"], &all["data"][1]["bytes"]), (&json!(0), &json!(0)));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..4 {
        let page = ola.get(&format!("/admin/tenants?limit=1{cursor}")).await.ok();
        seen.extend(slugs(&page));
        cursor = page["next_cursor"].as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    }
    assert_eq!((seen, cursor.as_str()), (slugs(&all), ""));
    ola.get("/admin/tenants?limit=201&cursor=A%00")
        .await
        .is_invalid(&[("?limit", "out-of-range"), ("?cursor", "invalid-format")]);
}

async fn a_tenant_is_made_and_given_brands(app: TestApp) {
    let ola = app.operator("ola");
    for bucket in ["ab", "ends-", "two..dots", "192.168.5.4", "Large"] {
        let odd = ola.post("/admin/tenants", &json!({"slug": "odd", "bucket": bucket})).await;
        odd.is_invalid(&[("/bucket", "invalid-format")]);
    }
    let made = ola.post("/admin/tenants", &json!({"slug": "hooli", "brands": ["nucleus", "xyz"]})).await.created();
    assert_eq!(made["slug"], "hooli");
    assert_eq!(made["brands"].as_object().unwrap().len(), 2);
    assert_eq!(ola.post("/admin/tenants", &json!({"slug": "hooli", "brands": ["xyz"]})).await.ok(), made);
    assert_eq!(ola.get("/admin/tenants/hooli").await.ok(), made);
    let id = made["tenant_id"].as_str().unwrap();
    assert_eq!(ola.get(&format!("/admin/tenants/{id}")).await.ok(), made);

    let grown = ola.post("/admin/tenants/hooli/brands", &json!({"brands": ["box"]})).await.ok();
    assert_eq!(grown["brands"]["xyz"], made["brands"]["xyz"]);
    assert_eq!(grown["brands"].as_object().unwrap().len(), 3);
    // It is there for its users at once.
    let gavin = app
        .tenant("acme")
        .user("gavin")
        .with("tenant_id", json!(id))
        .with("brand_ids", json!([grown["brands"]["box"]]));
    gavin.initiate("a", 1).await;

    ola.post("/admin/tenants", &json!({})).await.is_invalid(&[("/slug", "required")]);
    ola.post("/admin/tenants", &json!({"slug": "Hooli!", "brands": []}))
        .await
        .is_invalid(&[("/slug", "invalid-format"), ("/brands", "too-short")]);
    let wrong = json!({"slug": "ok", "brands": ["fine", "-not"]});
    ola.post("/admin/tenants", &wrong).await.is_invalid(&[("/brands/1", "invalid-format")]);
    ola.get("/admin/tenants/ok").await.is_problem(404, "not-found");
    ola.post("/admin/tenants/hooli/brands", &json!({})).await.is_invalid(&[("/brands", "required")]);
    for unknown in ["nobody", "%00", "a%2Fb", &uuid::Uuid::now_v7().to_string()] {
        let path = format!("/admin/tenants/{unknown}");
        ola.get(&path).await.is_problem(404, "not-found");
        ola.patch(&path, &json!({"suspended": true})).await.is_problem(404, "not-found");
        ola.post(&format!("{path}/brands"), &json!({"brands": ["x"]})).await.is_problem(404, "not-found");
        ola.get(&format!("{path}/usage")).await.is_problem(404, "not-found");
    }
}

async fn a_manager_sees_their_own_tenant_alone(app: TestApp) {
    let mia = app.tenant("acme").user("mia").permissions(&["uploads.manage"]);
    let own = mia.get("/admin/tenants/acme").await.ok();
    let mut whole = app.operator("ola").get("/admin/tenants/acme").await.ok();
    assert_eq!(mia.clone().all_brands().get("/admin/tenants/acme").await.ok(), whole);
    whole["brands"].as_object_mut().unwrap().remove("second").unwrap();
    assert_eq!(own, whole, "of the brands those that they hold");
    mia.get("/admin/tenants/acme/usage").await.is_problem(403, "permission-denied");
    let both = mia.clone().brands(&["main", "second"]);
    assert_eq!(both.get("/admin/tenants/acme/usage").await.ok()["slug"], "acme");
    for foreign in ["globex", "nobody"] {
        mia.get(&format!("/admin/tenants/{foreign}")).await.is_problem(404, "not-found");
        mia.get(&format!("/admin/tenants/{foreign}/usage")).await.is_problem(404, "not-found");
    }
    // To look is not to change.
    mia.patch("/admin/tenants/acme", &json!({"quota_bytes": null})).await.is_problem(403, "permission-denied");
    mia.post("/admin/tenants/acme/brands", &json!({"brands": ["x"]})).await.is_problem(403, "permission-denied");
    mia.post("/admin/tenants", &json!({"slug": "x"})).await.is_problem(403, "permission-denied");
    mia.get("/admin/tenants").await.is_problem(403, "permission-denied");
}

async fn completed(ann: &Actor, size: u64) {
    let upload = ann.initiate("kept", size).await;
    assert_eq!(ann.send(&upload).await, 200);
    ann.complete(&upload).await.created();
}

async fn days_tell_what_happened(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    let noon = chrono::NaiveTime::from_hms_opt(12, 0, 0).unwrap();
    let day = |n: i64| {
        // The clock starts at the wall's time; from here on it is noon of the next day.
        let now = app.clock.now();
        (now + TimeDelta::days(n)).date_naive()
    };
    app.advance((app.clock.now().date_naive() + TimeDelta::days(1)).and_time(noon).and_utc() - app.clock.now());
    let (first, second, third) = (day(0), day(1), day(2));
    completed(&ann, 10).await;
    completed(&ann, 20).await;
    let late = ann.initiate("late", 6 * MIB).await;
    let failed = ann.initiate("failed", 1).await;
    app.tenant("globex").user("gil").initiate("g", 1).await;
    // A moment before and after midnight, in UTC.
    app.advance(TimeDelta::hours(12) - TimeDelta::minutes(1));
    let cancelled = ann.initiate("cancelled", 1).await;
    app.advance(TimeDelta::minutes(2));
    ann.cancel(&cancelled).await.ok();
    ola.post(&format!("/admin/uploads/{}/fail?tenant=acme", failed.id), &json!({"reason_text": "x"})).await.ok();
    ann.send_all_parts(&late).await;
    ann.complete(&late).await.created();

    let path = "/admin/tenants/acme/usage";
    let usage = ola.get(&format!("{path}?from={first}&to={third}")).await.ok();
    let line = |day, opened, completed, failed, cancelled, bytes: u64| json!({"day": day, "opened": opened, "completed": completed, "failed": failed, "cancelled": cancelled, "bytes_completed": bytes});
    assert_eq!(
        usage["days"],
        json!([line(first, 5, 2, 0, 0, 30), line(second, 0, 1, 1, 1, 6 * MIB), line(third, 0, 0, 0, 0, 0)])
    );
    assert_eq!((&usage["live_sessions"], &usage["bytes"]), (&json!(0), &json!(30 + 6 * MIB + 2)));
    // One day, and the thirty that end today.
    assert_eq!(ola.get(&format!("{path}?from={second}&to={second}")).await.ok()["days"], json!([usage["days"][1]]));
    let month = ola.get(path).await.ok();
    let days = month["days"].as_array().unwrap();
    assert_eq!((days.len(), &days[29], &days[28]), (30, &usage["days"][1], &usage["days"][0]));
}

async fn a_span_is_checked(app: TestApp) {
    let ola = app.operator("ola");
    let path = "/admin/tenants/acme/usage";
    assert_eq!(
        ola.get(&format!("{path}?from=2026-01-01&to=2026-04-02")).await.ok()["days"].as_array().unwrap().len(),
        92
    );
    for span in [
        "from=2026-01-01&to=2026-04-03",
        "from=2026-01-02&to=2026-01-01",
        "from=9999-12-31&to=9999-12-31",
        "from=-0044-03-15&to=-0044-03-15",
        "from=%2B262142-12-31&to=%2B262142-12-31",
        "from=1969-12-31&to=1969-12-31",
    ] {
        ola.get(&format!("{path}?{span}")).await.is_invalid(&[("?from", "out-of-range")]);
    }
    ola.get(&format!("{path}?from=yesterday&to=2026-02-30"))
        .await
        .is_invalid(&[("?from", "invalid-format"), ("?to", "invalid-format")]);
    ola.get(&format!("{path}?days=7")).await.is_invalid(&[("?days", "unknown-field")]);
}
