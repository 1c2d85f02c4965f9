//! What operators did, as operators see it.

use serde_json::{Value, json};

use crate::kit::{Actor, TestApp, stories};

stories![it_is_listed_page_by_page, an_act_is_listed_with_who_did_it, odd_questions_are_refused];

async fn names(ola: &Actor, query: &str) -> Vec<String> {
    let page = ola.get(&format!("/admin/actions{query}")).await.ok();
    page["data"].as_array().unwrap().iter().map(|action| action["action"].as_str().unwrap().to_owned()).collect()
}

async fn it_is_listed_page_by_page(app: TestApp) {
    let ola = app.operator("ola");
    for bytes in 1..=3 {
        ola.patch("/admin/tenants/acme", &json!({"quota_bytes": bytes})).await.ok();
    }
    let all = ola.get("/admin/actions").await.ok();
    let seqs: Vec<_> = all["data"].as_array().unwrap().iter().map(|action| action["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=i64::try_from(seqs.len()).unwrap()).rev().collect::<Vec<_>>());
    assert_eq!(all["next_cursor"], Value::Null);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ola.get(&format!("/admin/actions?limit=2{cursor}")).await.ok();
        seen.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(json!(seen), all["data"]);
}

async fn an_act_is_listed_with_who_did_it(app: TestApp) {
    let (ola, ole) = (app.operator("ola"), app.operator("ole"));
    let hooli = ola.post("/admin/tenants", &json!({"slug": "hooli"})).await.created();
    ole.patch("/admin/tenants/hooli", &json!({"suspended": true})).await.ok();
    ole.post("/admin/tenants/hooli/brands", &json!({"brands": ["main", "second"]})).await.ok();
    let job = ole.post("/admin/passes/cleanup/run", &json!({})).await.is(202)["job_id"].clone();
    ola.delete(&format!("/admin/jobs/{}", job.as_str().unwrap())).await;

    let id = hooli["tenant_id"].as_str().unwrap();
    assert_eq!(names(&ola, "?tenant=hooli").await, ["tenant.brands", "tenant.limit", "tenant.create"]);
    assert_eq!(names(&ola, &format!("?tenant={id}&limit=1")).await, ["tenant.brands"]);
    let newest = ola.get("/admin/actions?limit=2").await.ok();
    let [drop, run] = newest["data"].as_array().unwrap().as_slice() else { panic!("{newest}") };
    assert_eq!((&drop["action"], &drop["actor"]), (&json!("job.drop"), &json!("ola")));
    assert_eq!((&run["action"], &run["actor"], &run["tenant_id"]), (&json!("pass.run"), &json!("ole"), &Value::Null));
    assert_eq!(run["details"]["job_id"], job);
    let made = ola.get("/admin/actions?tenant=hooli").await.ok()["data"][2].clone();
    assert_eq!((&made["tenant_id"], &made["details"]["brands"]), (&hooli["tenant_id"], &hooli["brands"]));
}

async fn odd_questions_are_refused(app: TestApp) {
    let ola = app.operator("ola");
    for (query, pointer, code) in [
        ("limit=0", "?limit", "out-of-range"),
        ("limit=201", "?limit", "out-of-range"),
        ("cursor=0", "?cursor", "out-of-range"),
        ("cursor=x", "?cursor", "wrong-type"),
        ("actor=ola", "?actor", "unknown-field"),
    ] {
        ola.get(&format!("/admin/actions?{query}")).await.is_invalid(&[(pointer, code)]);
    }
    ola.get("/admin/actions?tenant=nobody").await.is_problem(404, "not-found");
    app.tenant("acme").user("ann").get("/admin/actions").await.is_problem(403, "permission-denied");
}
