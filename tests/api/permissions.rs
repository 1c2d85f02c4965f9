//! Every route of the OpenAPI document, asked by callers who may not.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Actor, MIB, Reply, TestApp, stories};

stories![every_route_asks_who_is_calling, every_route_asks_for_its_permission, a_token_is_checked_in_full];

/// One operation of the document, with a body that is good for it and ids put into its path.
struct Route {
    method: Method,
    path: String,
    /// Any of these will do; none for any token. Routes that take no token are left out.
    permissions: Vec<String>,
    body: Option<Value>,
}

impl Route {
    async fn ask(&self, app: &TestApp, token: Option<&str>) -> Reply {
        app.send(self.method.clone(), &self.path, |mut request| {
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            match &self.body {
                Some(body) => request.json(body),
                None => request,
            }
        })
        .await
    }
}

async fn routes(app: &TestApp, session: &str, asset: &str) -> Vec<Route> {
    let document = app.send(Method::GET, "/openapi.json", |request| request).await.ok();
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Some(permission) = operation.get("x-permission") else { continue };
            let body = match path.as_str() {
                "/app/uploads/initiate" => Some(json!({"file_name": "a", "file_size": 1})),
                "/app/uploads/initiate-batch" => Some(json!({"files": [{"file_name": "a", "file_size": 1}]})),
                "/app/assets/upload/complete" => Some(json!({"upload_session_id": session})),
                "/app/assets/upload/complete-batch" => Some(json!({"uploads": [{"upload_session_id": session}]})),
                "/admin/tenants" if method == "post" => Some(json!({"slug": "acme"})),
                "/admin/tenants/{slug}" if method == "patch" => Some(json!({"suspended": true, "quota_bytes": 0})),
                "/admin/tenants/{slug}/brands" => Some(json!({"brands": ["main"]})),
                "/admin/uploads/{id}/fail" => Some(json!({"reason_text": "because"})),
                path if path.ends_with("/multipart-part-url") => Some(json!({"part_number": 1})),
                path if path.ends_with("/multipart-part-urls") => Some(json!({"from": 1, "to": 1})),
                _ => None,
            };
            let id = if path.starts_with("/app/assets") { asset } else { session };
            let filled = path.replace("{batch_reference}", "b").replace("{slug}", "acme").replace("{name}", "cleanup");
            let filled = filled.split('/').map(|part| if part.starts_with('{') { id } else { part });
            routes.push(Route {
                method: method.to_uppercase().parse().unwrap(),
                path: filled.collect::<Vec<_>>().join("/"),
                permissions: named(permission),
                body,
            });
        }
    }
    let found: BTreeSet<_> = routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert!(found.len() >= 30, "the document has all of API.md's routes: {found:?}");
    // Nobody at the operators' door goes unasked.
    let open = routes
        .iter()
        .find(|route| route.path.starts_with("/admin/") && !route.permissions.iter().any(|p| p == "operator"));
    assert!(open.is_none_or(|route| panic!("{} {} lets others in", route.method, route.path)));
    routes
}

/// `x-permission` is a name, a list of which any will do, or null.
fn named(permission: &Value) -> Vec<String> {
    let text = |name: &Value| name.as_str().unwrap_or_else(|| panic!("x-permission: {permission}")).to_owned();
    match permission {
        Value::Null => vec![],
        Value::Array(names) => names.iter().map(text).collect(),
        name => vec![text(name)],
    }
}

/// A session with an upload, and an asset of another one, both ann's.
async fn something_to_ask_about(ann: &Actor) -> (String, String) {
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB, "batch_reference": "b"});
    let session = ann.initiate_with(&body).await.created();
    let note = ann.initiate("note.txt", 1).await;
    assert_eq!(ann.send(&note).await, 200);
    let asset = ann.complete(&note).await.created();
    (session["upload_session_id"].as_str().unwrap().to_owned(), asset["asset_id"].as_str().unwrap().to_owned())
}

async fn every_route_asks_who_is_calling(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (session, asset) = something_to_ask_about(&ann).await;
    let expired = ann.clone().with("exp", json!(chrono::Utc::now().timestamp() - 120)).token();
    let unsigned = {
        let token = ann.token();
        format!("{}.", &token[..token.rfind('.').unwrap()])
    };
    for route in routes(&app, &session, &asset).await {
        for token in [None, Some(""), Some("x"), Some(expired.as_str()), Some(unsigned.as_str())] {
            route.ask(&app, token).await.is_problem(401, "unauthenticated");
        }
    }
    assert_eq!(ann.get(&format!("/app/uploads/{session}")).await.ok()["version"], 2);
}

async fn every_route_asks_for_its_permission(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann");
    let (session, asset) = something_to_ask_about(&ann).await;
    let all = ["uploads.create", "uploads.view", "uploads.cancel", "assets.create", "assets.view", "uploads.manage"];
    let before = ann.list("").await.ok();
    for route in routes(&app, &session, &asset).await {
        if route.permissions.is_empty() {
            route.ask(&app, Some(&ann.clone().permissions(&[]).token())).await.ok();
            continue;
        }
        let needed: Vec<&str> = route.permissions.iter().map(String::as_str).collect();
        let others: Vec<&str> = all.into_iter().filter(|name| !needed.contains(name)).collect();
        for permissions in [others.as_slice(), &[], &["uploads", "UPLOADS.CREATE", "uploads.*"]] {
            let token = ann.clone().permissions(permissions).token();
            route.ask(&app, Some(&token)).await.is_problem(403, "permission-denied");
        }
        if !needed.contains(&"operator") {
            // An operator is of no tenant, and alone may do nothing where a tenant's users do.
            route.ask(&app, Some(&app.operator("ola").token())).await.is_problem(403, "permission-denied");
            let member = ann.clone().permissions(&["operator"]);
            route.ask(&app, Some(&member.token())).await.is_problem(403, "permission-denied");
        }
        if needed == ["operator"] {
            route.ask(&app, Some(&ann.token())).await.is_problem(403, "permission-denied");
            continue;
        }
        // With it, but from elsewhere: never the thing itself, whatever else the answer is.
        if route.path == "/app/events" {
            continue; // It has no end; what it tells whom is in `events.rs`.
        }
        for elsewhere in [app.tenant("globex").user("ann"), acme.user("ann").brands(&["second"])] {
            let own: Vec<&str> = needed.iter().copied().filter(|name| *name != "operator").collect();
            let stranger = elsewhere.permissions(&[own.as_slice(), &["uploads.manage"]].concat());
            let reply = route.ask(&app, Some(&stranger.token())).await;
            assert!(!String::from_utf8_lossy(&reply.body).contains(&session), "{reply}");
            // These answer what is the stranger's own; of the tenant itself its managers see something in every brand.
            let makes_its_own = [
                "/app/uploads/initiate",
                "/app/uploads/initiate-batch",
                "/app/uploads",
                "/admin/uploads",
                "/admin/findings",
            ];
            let of_its_tenant = route.path.starts_with("/admin/tenants/") && stranger.tenant.id == acme.id;
            if !makes_its_own.contains(&route.path.as_str()) && !of_its_tenant {
                reply.is_problem(404, "not-found");
            }
        }
    }
    assert_eq!(ann.list("").await.ok(), before, "nothing has changed for its owner");
}

async fn a_token_is_checked_in_full(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let refused = |claim: &str, value: Value| {
        let what = format!("{claim} = {value}");
        let token = ann.clone().with(claim, value).token();
        let app = app.clone();
        async move {
            let reply = app.send(Method::GET, "/app/uploads", |request| request.bearer_auth(token)).await;
            assert_eq!(reply.status, 401, "with {what}: {reply}");
            reply.is_problem(401, "unauthenticated");
        }
    };
    let now = chrono::Utc::now().timestamp();
    refused("exp", json!(now - 61)).await;
    refused("exp", json!("tomorrow")).await;
    refused("nbf", json!(now + 120)).await;
    refused("sub", Value::Null).await;
    refused("sub", json!(7)).await;
    refused("sub", json!("nul\0inside")).await;
    refused("tenant_id", Value::Null).await;
    refused("tenant_id", json!("acme")).await;
    refused("brand_ids", Value::Null).await;
    refused("brand_ids", json!("all")).await;
    refused("brand_ids", json!(["main"])).await;
    refused("permissions", Value::Null).await;
    refused("permissions", json!("*")).await;
    // Within the leeway of a minute.
    ann.clone().with("exp", json!(now - 30)).list("").await.ok();
    ann.clone().with("nbf", json!(now + 30)).list("").await.ok();

    // Another scheme, and another place for the token.
    for header in [format!("Basic {}", ann.token()), ann.token(), format!("Bearer  {} x", ann.token())] {
        let reply = app.send(Method::GET, "/app/uploads", |request| request.header("Authorization", header)).await;
        reply.is_problem(401, "unauthenticated");
    }
    // The scheme's name is case-insensitive (RFC 9110, section 11.1).
    let bearer = format!("bearer {}", ann.token());
    app.send(Method::GET, "/app/uploads", |request| request.header("Authorization", bearer)).await.ok();
}
