use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::kit::{Actor, MIB, TestApp, stories};

stories![
    pages_join_without_gap_or_repeat,
    filters_narrow_the_list,
    a_user_sees_their_own_and_a_manager_all,
    bad_queries_are_named,
    events_tell_the_whole_story,
    brands_are_those_that_the_caller_holds,
];

fn ids(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().unwrap_or_else(|| panic!("no data in {page}"));
    data.iter().map(|session| session["upload_session_id"].as_str().unwrap().to_owned()).collect()
}

async fn all_pages(actor: &Actor, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut page = actor.list(query).await.ok();
    loop {
        all.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { return all };
        assert!(!ids(&page).is_empty(), "an empty page that promises another");
        page = actor.list(&format!("{query}&cursor={cursor}")).await.ok();
    }
}

async fn pages_join_without_gap_or_repeat(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut made = Vec::new();
    for n in 0..11 {
        made.push(ann.initiate(&format!("{n}.txt"), 10).await.id);
    }
    made.reverse();
    for limit in [1, 2, 5, 10, 11, 12, 200] {
        assert_eq!(all_pages(&ann, &format!("limit={limit}")).await, made, "pages of {limit}");
    }
    assert_eq!(all_pages(&ann, "").await, made);

    // What arrives while somebody pages is newer than every page to come.
    let first = ann.list("limit=4").await.ok();
    ann.initiate("late.txt", 10).await;
    let second = ann.list(&format!("limit=4&cursor={}", first["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!(ids(&second), made[4..8]);
}

async fn filters_narrow_the_list(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann").brands(&["main", "second"]);
    let open = |body: Value| {
        let ann = ann.clone();
        async move { crate::kit::Upload::new(ann.initiate_with(&body).await.created()) }
    };
    let (main, second) = (json!(acme.brand("main")), json!(acme.brand("second")));
    let a = open(json!({"file_name": "a", "file_size": 1, "brand_id": main, "batch_reference": "x"})).await;
    let b =
        open(json!({"file_name": "b", "file_size": 1, "brand_id": second, "batch_reference": "x", "fingerprint": "f"}))
            .await;
    let c = open(json!({"file_name": "c", "file_size": 6 * MIB, "brand_id": main, "fingerprint": "f"})).await;
    ann.cancel(&a).await.ok();
    app.store.abort(&c.key(), c.upload_id()).await;
    ann.resume(&c).await.ok();

    for (query, wanted) in [
        (String::new(), vec![&c, &b, &a]),
        ("status=CANCELLED".into(), vec![&a]),
        ("status=UPLOADING,FAILED".into(), vec![&c, &b]),
        ("status=INITIATING,COMPLETED".into(), vec![]),
        (format!("brand_id={}", acme.brand("main")), vec![&c, &a]),
        (format!("brand_id={}&status=CANCELLED,UPLOADING", acme.brand("main")), vec![&a]),
        ("batch_reference=x".into(), vec![&b, &a]),
        ("fingerprint=f".into(), vec![&c, &b]),
        ("fingerprint=f&batch_reference=x".into(), vec![&b]),
        ("created_by=ann".into(), vec![&c, &b, &a]),
        ("created_by=bob".into(), vec![]),
        ("batch_reference=unknown".into(), vec![]),
    ] {
        let wanted: Vec<&str> = wanted.into_iter().map(|upload| upload.id.as_str()).collect();
        assert_eq!(ids(&ann.list(&query).await.ok()), wanted, "{query}");
        assert_eq!(all_pages(&ann, &format!("{query}&limit=1")).await, wanted, "{query}, page by page");
    }
    let failed = ann.list("status=FAILED").await.ok();
    assert_eq!(failed["data"][0], ann.session(&c).await.ok());
}

async fn a_user_sees_their_own_and_a_manager_all(app: TestApp) {
    let acme = app.tenant("acme");
    let user = |name: &str| acme.user(name).permissions(&["uploads.create", "uploads.view"]);
    let anns = user("ann").initiate("a", 1).await.id;
    let bobs = user("bob").initiate("b", 1).await.id;
    let others = user("bob").brands(&["second"]).initiate("c", 1).await.id;
    app.tenant("globex").user("ann").initiate("d", 1).await;

    assert_eq!(ids(&user("ann").list("").await.ok()), [anns.as_str()]);
    assert!(ids(&user("ann").list("created_by=bob").await.ok()).is_empty());
    assert_eq!(ids(&user("bob").list("").await.ok()), [bobs.as_str()]);
    assert_eq!(ids(&user("bob").brands(&["main", "second"]).list("").await.ok()), [others.clone(), bobs.clone()]);
    let boss = acme.user("boss").permissions(&["uploads.view", "uploads.manage"]);
    assert_eq!(ids(&boss.list("").await.ok()), [bobs.clone(), anns.clone()]);
    assert_eq!(ids(&boss.list("created_by=ann").await.ok()), [anns.as_str()]);
    assert_eq!(ids(&boss.clone().all_brands().list("").await.ok()), [others, bobs, anns]);
    assert!(ids(&boss.brands(&[]).list("").await.ok()).is_empty());
}

async fn bad_queries_are_named(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let ended = ann.initiate("a", 1).await;
    for (query, pointer) in [
        ("limit=0", "?limit"),
        ("limit=201", "?limit"),
        ("limit=-1", "?limit"),
        ("limit=ten", "?limit"),
        ("status=DONE", "?status"),
        ("status=uploading", "?status"),
        ("brand_id=main", "?brand_id"),
        ("cursor=zzz", "?cursor"),
        ("cursor=%00", "?cursor"),
        ("colour=red", "?colour"),
    ] {
        let problem = ann.list(query).await.is_problem(422, "validation-failed");
        let pointers: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().filter_map(|e| e["pointer"].as_str()).collect();
        assert_eq!(pointers, [pointer], "{query}");
    }
    ann.list("batch_reference=%00&fingerprint=%FF").await.is_problem(422, "validation-failed");
    let all = [
        ("?status", "invalid-format"),
        ("?limit", "out-of-range"),
        ("?brand_id", "invalid-format"),
        ("?colour", "unknown-field"),
    ];
    let query = "status=DONE,FAILED&limit=0&brand_id=main&colour=red";
    ann.list(query).await.is_invalid(&all);
    ann.get(&format!("/admin/uploads?{query}")).await.is_invalid(&all);
    let wait = format!("/app/uploads/{}/wait?for=ever&timeout=61", ended.id);
    ann.get(&wait).await.is_invalid(&[("?for", "invalid-format"), ("?timeout", "out-of-range")]);
    ann.cancel(&ended).await.ok();
}

async fn events_tell_the_whole_story(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    app.advance(TimeDelta::hours(1));
    let boss = app.tenant("acme").user("boss");
    boss.cancel(&note).await.ok();

    let events = ann.get(&format!("/app/uploads/{}/events", note.id)).await.ok();
    let events = events["data"].as_array().unwrap();
    let told: Vec<Value> =
        events.iter().map(|e| json!([e["seq"], e["event"], e["from"], e["to"], e["actor"], e["reason"]])).collect();
    assert_eq!(
        told,
        [
            json!([1, "initiate", null, "INITIATING", "ann", null]),
            json!([2, "open", "INITIATING", "UPLOADING", "ann", null]),
            json!([3, "cancel", "UPLOADING", "CANCELLED", "boss", null]),
            json!([4, "storage.discard", "CANCELLED", "CANCELLED", "boss", null]),
        ]
    );
    assert_eq!(events[0]["at"], note.session["created_at"]);
    assert_eq!(events[2]["at"], ann.session(&note).await.ok()["updated_at"]);
}

async fn brands_are_those_that_the_caller_holds(app: TestApp) {
    let acme = app.tenant("acme");
    let brand = |slug: &str| json!({"brand_id": acme.brand(slug), "slug": slug});
    let nobody = acme.user("ann").permissions(&[]);
    assert_eq!(nobody.get("/app/brands").await.ok(), json!({"data": [brand("main")]}));
    assert_eq!(
        nobody.clone().all_brands().get("/app/brands").await.ok(),
        json!({"data": [brand("main"), brand("second")]})
    );
    assert_eq!(nobody.clone().brands(&[]).get("/app/brands").await.ok(), json!({"data": []}));
    let foreign = app.tenant("globex").brand("main");
    let claims = nobody.with("brand_ids", json!([acme.brand("second"), foreign]));
    assert_eq!(claims.get("/app/brands").await.ok(), json!({"data": [brand("second")]}));
}
