//! Every route of the OpenAPI document, asked by callers who may not.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{Actor, MIB, Reply, TestApp, stories};

stories![
    every_route_asks_who_is_calling,
    every_route_asks_for_its_permission,
    every_verb_asks_for_its_permission_at_every_door,
    an_answer_holds_no_more_than_its_reader_may_ask_for,
    a_manager_of_one_brand_sees_that_one,
    a_token_is_checked_in_full,
];

/// All but `operator`.
const ALL: [&str; 6] =
    ["uploads.create", "uploads.view", "uploads.cancel", "assets.create", "assets.view", "uploads.manage"];

/// What is done, the permission that it asks for, and the routes that lead to it: at each of them, whoever has every
/// permission but that one is refused.
const VERBS: &[(&str, &str, &[&str])] = &[
    ("open an upload", "uploads.create", &["POST /app/uploads/initiate", "POST /app/uploads/initiate-batch"]),
    (
        "send to an upload",
        "uploads.create",
        &[
            "POST /app/uploads/{id}/multipart-part-url",
            "POST /app/uploads/{id}/multipart-part-urls",
            "PUT /app/uploads/{id}/activity",
        ],
    ),
    (
        "look at uploads",
        "uploads.view",
        &[
            "GET /app/uploads",
            "GET /app/uploads/{id}",
            "GET /app/uploads/{id}/resume",
            "GET /app/uploads/{id}/events",
            "GET /app/uploads/{id}/wait",
            "GET /app/uploads/{id}/receipt",
            "GET /app/events",
            "GET /app/batches/{batch_reference}",
            "GET /admin/uploads",
            "GET /admin/uploads/{id}",
            "GET /admin/findings",
        ],
    ),
    (
        "end an upload",
        "uploads.cancel",
        &["POST /app/uploads/{id}/cancel", "POST /admin/uploads/{id}/cancel", "POST /admin/uploads/{id}/fail"],
    ),
    ("make an asset", "assets.create", &["POST /app/assets/upload/complete", "POST /app/assets/upload/complete-batch"]),
    ("look at assets", "assets.view", &["GET /app/assets/{id}", "GET /app/assets/{id}/download"]),
    (
        "manage what others opened",
        "uploads.manage",
        &[
            "GET /admin/uploads",
            "GET /admin/uploads/{id}",
            "POST /admin/uploads/{id}/cancel",
            "POST /admin/uploads/{id}/fail",
            "GET /admin/findings",
            "GET /admin/tenants/{slug}",
            "GET /admin/tenants/{slug}/usage",
        ],
    ),
];

/// One operation of the document, with a body that is good for it and ids put into its path.
struct Route {
    method: Method,
    /// As the document has it: `GET /app/uploads/{id}`.
    name: String,
    path: String,
    /// Of these sets any will do; none for any token. Routes that take no token are left out.
    permissions: Vec<Vec<String>>,
    body: Option<Value>,
}

impl Route {
    /// What a tenant's user needs all of; `None` where only an operator gets in.
    fn needs(&self) -> Option<BTreeSet<&str>> {
        let sets = self.permissions.iter().map(|set| set.iter().map(String::as_str).collect::<BTreeSet<_>>());
        sets.into_iter().find(|set| !set.contains("operator"))
    }

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
                name: format!("{} {path}", method.to_uppercase()),
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
        .find(|route| route.path.starts_with("/admin/") && !route.permissions.iter().any(|set| set == &["operator"]));
    assert!(open.is_none_or(|route| panic!("{} {} lets others in", route.method, route.path)));
    routes
}

/// `x-permission` is a name, a list of which any will do, or null. A list in the list is names that are all needed.
fn named(permission: &Value) -> Vec<Vec<String>> {
    let text = |name: &Value| name.as_str().unwrap_or_else(|| panic!("x-permission: {permission}")).to_owned();
    let all_of = |names: &Value| match names {
        Value::Array(names) => names.iter().map(text).collect(),
        name => vec![text(name)],
    };
    match permission {
        Value::Null => vec![],
        Value::Array(alternatives) => alternatives.iter().map(all_of).collect(),
        name => vec![vec![text(name)]],
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
    let before = ann.list("").await.ok();
    for route in routes(&app, &session, &asset).await {
        if route.permissions.is_empty() {
            route.ask(&app, Some(&ann.clone().permissions(&[]).token())).await.ok();
            continue;
        }
        let needs = route.needs();
        let others: Vec<&str> =
            ALL.into_iter().filter(|name| !needs.iter().flatten().any(|need| need == name)).collect();
        for permissions in [others.as_slice(), &[], &["uploads", "UPLOADS.CREATE", "uploads.*"]] {
            let token = ann.clone().permissions(permissions).token();
            route.ask(&app, Some(&token)).await.is_problem(403, "permission-denied");
        }
        if !route.permissions.iter().flatten().any(|name| name == "operator") {
            // An operator is of no tenant, and alone may do nothing where a tenant's users do.
            route.ask(&app, Some(&app.operator("ola").token())).await.is_problem(403, "permission-denied");
            let member = ann.clone().permissions(&["operator"]);
            route.ask(&app, Some(&member.token())).await.is_problem(403, "permission-denied");
        }
        let Some(needs) = needs else {
            route.ask(&app, Some(&ann.token())).await.is_problem(403, "permission-denied");
            continue;
        };
        // With it, but from elsewhere: never the thing itself, whatever else the answer is.
        if route.path == "/app/events" {
            continue; // It has no end; what it tells whom is in `events.rs`.
        }
        for elsewhere in [app.tenant("globex").user("ann"), acme.user("ann").brands(&["second"])] {
            let own: Vec<&str> = needs.iter().copied().chain(["uploads.manage"]).collect();
            let stranger = elsewhere.permissions(&own);
            let reply = route.ask(&app, Some(&stranger.token())).await;
            if route.path == "/app/assets/upload/complete-batch" {
                // Which session a result is of, the stranger has said; there is nothing else in it.
                let problem = reply.is_problem(422, "validation-failed");
                assert_eq!(problem["uploads"][0]["problem"]["code"], "not-found", "{reply}");
                continue;
            }
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
            if of_its_tenant && route.path.ends_with("/usage") {
                // It is of all brands.
                reply.is_problem(403, "permission-denied");
            } else if !makes_its_own.contains(&route.path.as_str()) && !of_its_tenant {
                reply.is_problem(404, "not-found");
            }
        }
    }
    assert_eq!(ann.list("").await.ok(), before, "nothing has changed for its owner");
}

async fn every_verb_asks_for_its_permission_at_every_door(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (session, asset) = something_to_ask_about(&ann).await;
    let routes = routes(&app, &session, &asset).await;
    let with = |permissions: &[&str]| ann.clone().permissions(permissions).token();
    // No route leads to no verb, and each says in the document what its verbs ask for.
    for route in &routes {
        let of_verbs: BTreeSet<&str> = VERBS
            .iter()
            .filter(|(_, _, names)| names.contains(&route.name.as_str()))
            .map(|(_, permission, _)| *permission)
            .collect();
        assert_eq!(route.needs().unwrap_or_default(), of_verbs, "{}", route.name);
    }
    let route = |name: &str| routes.iter().find(|route| route.name == name).unwrap_or_else(|| panic!("no {name}"));
    for (verb, permission, names) in VERBS {
        for name in *names {
            let but_that_one: Vec<&str> = ALL.into_iter().filter(|other| other != permission).collect();
            let reply = route(name).ask(&app, Some(&with(&but_that_one))).await;
            assert_eq!(reply.status, 403, "who may not {verb} may by {name}: {reply}");
            reply.is_problem(403, "permission-denied");
        }
    }
    assert_eq!(ann.get(&format!("/app/uploads/{session}")).await.ok()["version"], 2, "nothing came of it");
    // And those who have just what is asked for get in.
    for route in routes.iter().filter(|route| route.name != "GET /app/events") {
        let Some(needs) = route.needs() else { continue };
        let needs: Vec<&str> = needs.into_iter().collect();
        // Usage is of all brands.
        let token = if route.name.ends_with("/usage") {
            ann.clone().all_brands().permissions(&needs).token()
        } else {
            with(&needs)
        };
        let reply = route.ask(&app, Some(&token)).await;
        assert!(![401, 403, 404].contains(&reply.status), "{}: {reply}", route.name);
    }
}

async fn an_answer_holds_no_more_than_its_reader_may_ask_for(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let but = |permission: &str| {
        let others: Vec<&str> = ALL.into_iter().filter(|other| *other != permission).collect();
        ann.clone().permissions(&others)
    };
    // Where to send bytes: whoever may only look would overwrite what the user sends.
    let note = ann.initiate("note.txt", 10).await;
    for desk in [but("uploads.create"), ann.clone().permissions(&["uploads.view", "uploads.manage"])] {
        let resumed = desk.resume(&note).await.ok();
        assert_eq!((&resumed["can_resume"], &resumed["uploaded_bytes"]), (&json!(true), &json!(0)));
        for member in ["upload_url", "upload_method", "upload_headers", "upload_url_expires_at"] {
            assert_eq!(resumed[member], Value::Null, "{member}");
        }
    }
    let resumed = ann.clone().permissions(&["uploads.view", "uploads.create"]).resume(&note).await.ok();
    assert_eq!(ann.send_to(&resumed, note.bytes.clone()).await, 200);

    // The asset.
    let asset = ann.complete(&note).await.created();
    let wait = format!("/app/uploads/{}/wait", note.id);
    let waited = but("assets.view").get(&wait).await.ok();
    assert_eq!((&waited["satisfied"], &waited["status"]), (&json!(true), &json!("COMPLETED")));
    assert_eq!(waited["asset"], Value::Null);
    assert_eq!(ann.get(&wait).await.ok()["asset"], asset);
    let inspect = format!("/admin/uploads/{}", note.id);
    assert_eq!(but("assets.view").get(&inspect).await.ok()["asset"], Value::Null);
    assert_eq!(ann.get(&inspect).await.ok()["asset"], asset);
    let shown = app.operator("ola").get(&inspect).await.ok();
    assert_eq!((&shown["asset"], &shown["bucket"]), (&asset, &json!(app.store.bucket)));
}

async fn a_manager_of_one_brand_sees_that_one(app: TestApp) {
    let (acme, ola) = (app.tenant("acme"), app.operator("ola"));
    let mia = acme.user("mia");
    let theirs = acme.user("bob").brands(&["second"]).initiate("b", 1).await;
    let own = acme.user("ann").initiate("a", 1).await;
    app.move_tenant("acme", Some("acme-files")).await;
    let (seen, whole) = (mia.get("/admin/tenants/acme").await.ok(), ola.get("/admin/tenants/acme").await.ok());
    app.move_tenant("acme", None).await;
    assert_eq!(seen["brands"], json!({"main": acme.brand("main")}));
    assert_eq!(whole["brands"].as_object().unwrap().len(), 2);
    assert_eq!((&seen["bucket"], &whole["bucket"]), (&Value::Null, &json!("acme-files")));
    // Figures of all brands are for those who hold all.
    mia.get("/admin/tenants/acme/usage").await.is_problem(403, "permission-denied");
    for all in [mia.clone().all_brands(), mia.clone().brands(&["main", "second"])] {
        let usage = all.get("/admin/tenants/acme/usage").await.ok();
        assert_eq!((&usage["live_sessions"], &usage["bucket"]), (&json!(2), &Value::Null));
    }
    mia.get(&format!("/admin/uploads/{}", theirs.id)).await.is_problem(404, "not-found");
    assert_eq!(mia.get(&format!("/admin/uploads/{}", own.id)).await.ok()["bucket"], Value::Null);
    for upload in [&theirs, &own] {
        acme.user("boss").all_brands().cancel(upload).await.ok();
    }
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
    // What the record calls the machine itself.
    refused("sub", json!("system")).await;
    refused("sub", json!("cli")).await;
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
