use serde_json::{Value, json};

use crate::kit::{Fault, Op, TestApp, stories};

stories![
    it_says_when_it_is_ready_and_what_is_not,
    health_checks_cost_the_back_ends_nothing,
    the_document_describes_the_server,
    unknown_routes_and_wrong_methods_are_problems,
];

async fn get(app: &TestApp, path: &str) -> crate::kit::Reply {
    app.send(reqwest::Method::GET, path, |request| request).await
}

async fn it_says_when_it_is_ready_and_what_is_not(app: TestApp) {
    get(&app, "/healthz").await.ok();
    let well = json!({"ready": true, "database": "ok", "store": "ok"});
    assert_eq!(app.readiness(200).await, well);

    app.store.faults().order(Op::Other, Fault::DropRequest);
    get(&app, "/healthz").await.ok();
    assert_eq!(app.readiness(503).await, json!({"ready": false, "database": "ok", "store": "unavailable"}));
    app.store.heal();
    assert_eq!(app.readiness(200).await, well);

    // Reads of SQLite go on meanwhile: it is a write that is tried.
    app.database.cut().await;
    get(&app, "/healthz").await.ok();
    assert_eq!(app.readiness(503).await, json!({"ready": false, "database": "unavailable", "store": "ok"}));
    app.database.heal().await;
    assert_eq!(app.readiness(200).await, well);
}

async fn health_checks_cost_the_back_ends_nothing(app: TestApp) {
    app.readiness(200).await;
    let before = app.store.faults().calls(Op::Other);
    for _ in 0..50 {
        get(&app, "/readyz").await.ok();
    }
    let looks = app.store.faults().calls(Op::Other) - before;
    assert!(looks < 25, "the store was asked {looks} times for 50 checks");
}

async fn the_document_describes_the_server(app: TestApp) {
    let document = get(&app, "/openapi.json").await.ok();
    assert_eq!(document["openapi"].as_str().map(|v| &v[..3]), Some("3.1"));
    let published = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).unwrap_or_default();
    let published: Value = serde_json::from_slice(&published).unwrap_or_default();
    assert_eq!(document, published, "docs/openapi.json is behind the code: run `make openapi`");
    let docs = get(&app, "/docs/").await;
    assert_eq!(docs.status, 200, "{docs}");
    // Swagger UI would show the badge of a validator that somebody else runs, and tell it where the document is.
    let script = get(&app, "/docs/swagger-initializer.js").await;
    assert!(String::from_utf8_lossy(&script.body).contains("\"validatorUrl\": \"none\""), "{script}");
}

async fn unknown_routes_and_wrong_methods_are_problems(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for path in ["/", "/app", "/app/nothing", "/app/uploads/not-an-id/nothing", "/%00", "/app/uploads//resume"] {
        ann.get(path).await.is_problem(404, "not-found");
    }
    for (method, path) in [
        (reqwest::Method::DELETE, "/app/uploads"),
        (reqwest::Method::GET, "/app/uploads/initiate"),
        (reqwest::Method::PUT, "/app/assets/upload/complete"),
        (reqwest::Method::POST, "/healthz"),
    ] {
        let reply = app.send(method, path, |request| request.bearer_auth(ann.token())).await;
        // `initiate` could also be read as an id that is not one.
        if path.ends_with("initiate") && reply.status == 404 {
            continue;
        }
        reply.is_problem(405, "method-not-allowed");
    }
}
