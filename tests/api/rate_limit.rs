//! How often a user may ask: beyond it 429, for that user alone, until the time has brought something back.

use std::time::Instant;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;

use crate::kit::{Actor, Reply, TestApp, stories};

stories![
    a_burst_passes_and_then_the_rate_holds,
    a_refused_request_does_nothing,
    every_route_that_takes_a_token_is_limited_and_no_other,
    nobody_is_limited_by_default,
];

const RATE: &str = "QUAYMASTER_RATE_LIMIT__REQUESTS_PER_SECOND";
const BURST: &str = "QUAYMASTER_RATE_LIMIT__BURST";

async fn ask(who: &Actor) -> Reply {
    who.get("/app/brands").await
}

/// Asks until it is refused; how often that went well, and in how many seconds.
async fn use_up(who: &Actor) -> (u64, u64) {
    let started = Instant::now();
    for passed in 0..1_000 {
        let reply = ask(who).await;
        if reply.status == 429 {
            let problem = reply.is_problem(429, "rate-limited");
            assert_eq!((&problem["retry_after"], reply.header("retry-after")), (&json!(1), "1"));
            return (passed, started.elapsed().as_secs() + 1);
        }
        reply.ok();
    }
    panic!("nobody was refused");
}

async fn a_burst_passes_and_then_the_rate_holds(app: TestApp) {
    app.restart_with(&[(RATE, "1"), (BURST, "5")]).await;
    let acme = app.tenant("acme");
    let ann = acme.user("ann");
    for _ in 0..2 {
        let (passed, secs) = use_up(&ann).await;
        // What comes back while the story goes on passes too.
        assert!((5..=5 + secs).contains(&passed), "{passed} in {secs} s");

        // The others, ann of another tenant and an operator of that name among them, have shares of their own.
        ask(&acme.user("bob")).await.ok();
        ask(&app.tenant("globex").user("ann")).await.ok();
        app.operator("ann").get("/admin/jobs").await.ok();

        app.advance(TimeDelta::seconds(1));
        ask(&ann).await.ok();
        app.advance(TimeDelta::minutes(1));
    }
}

async fn a_refused_request_does_nothing(app: TestApp) {
    app.restart_with(&[(RATE, "1"), (BURST, "1")]).await;
    let ann = app.tenant("acme").user("ann");
    // Two extractors look at its token; it counts once.
    ann.initiate_with(&json!({"colour": "red"})).await.is_problem(422, "validation-failed");
    stand_still(&app);
    // Not even what is wrong with it is said.
    for body in [json!({"file_name": "note.txt", "file_size": 1}), json!({"colour": "red"})] {
        ann.initiate_with(&body).await.is_problem(429, "rate-limited");
    }
    // Who has no good token is told that, and takes nothing from anybody.
    let nobody = |token: &'static str| app.send(Method::GET, "/app/brands", move |request| request.bearer_auth(token));
    for _ in 0..3 {
        nobody("x").await.is_problem(401, "unauthenticated");
    }
    app.advance(TimeDelta::hours(2));
    assert_eq!(ann.list("").await.ok()["data"], json!([]));
}

async fn every_route_that_takes_a_token_is_limited_and_no_other(app: TestApp) {
    app.restart_with(&[(RATE, "1"), (BURST, "1")]).await;
    let document = app.send(Method::GET, "/openapi.json", |request| request).await.ok();
    let ann = app.tenant("acme").user("ann");
    let boss = app.operator("boss");
    ask(&ann).await.ok();
    boss.get("/admin/jobs").await.ok();
    stand_still(&app);
    let mut limited = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let takes_a_token = operation.get("x-permission").is_some();
            assert_eq!(operation["responses"].get("429").is_some(), takes_a_token, "{method} {path}");
            for who in [&ann, &boss] {
                let reply = app.send(method.clone(), path, |request| request.bearer_auth(who.token())).await;
                if takes_a_token {
                    reply.is_problem(429, "rate-limited");
                    limited += 1;
                } else {
                    reply.ok();
                }
            }
        }
    }
    assert!(limited >= 60, "{limited}");
    for path in ["/healthz", "/readyz", "/openapi.json", "/docs/"] {
        for _ in 0..5 {
            assert_eq!(ann.get(path).await.status, 200, "{path}");
        }
    }
}

async fn nobody_is_limited_by_default(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for _ in 0..60 {
        ask(&ann).await.ok();
    }
}

/// Back to before anybody asked: what was used up stays so, however long the story takes.
fn stand_still(app: &TestApp) {
    app.advance(TimeDelta::hours(-1));
}
