//! Who gets in by which keys and claims, what the record says of them, and what nobody learns at any door.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::kit::{Actor, Pair, Reply, TestApp, stories};
use crate::shares::Raw;

stories![
    a_new_key_is_waited_for_and_never_called_bad,
    what_a_client_sent_before_it_went_is_what_is_done,
    claims_are_found_where_the_issuer_puts_them,
    the_record_tells_people_from_the_machine,
    ids_of_live_events_tell_nothing_of_others,
    ids_of_live_events_are_good_at_every_process,
];

/// An identity provider that publishes the keys it is told to; a task of its own until the story ends.
struct Provider {
    url: String,
    keys: Arc<Mutex<Value>>,
}

impl Provider {
    async fn start() -> Self {
        Self::taking(Duration::ZERO).await
    }

    /// One that takes so long for each answer.
    async fn taking(time: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(json!([])));
        let published = Arc::clone(&keys);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let body = json!({ "keys": *published.lock().unwrap() }).to_string();
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n";
                let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                tokio::time::sleep(time).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, keys }
    }

    fn publish(&self, keys: &[&Signer]) {
        *self.keys.lock().unwrap() = keys.iter().map(|key| key.jwk.clone()).collect();
    }
}

/// A key of the provider's.
struct Signer {
    kid: &'static str,
    jwk: Value,
    key: EncodingKey,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        use base64::Engine as _;
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let point = pair.public_key().as_ref();
        let (x, y) = (part(&point[1..49]), part(&point[49..]));
        let jwk = json!({"kty": "EC", "crv": "P-384", "kid": kid, "alg": "ES384", "x": x, "y": y});
        let der = pair.to_pkcs8v1().unwrap();
        Self { kid, jwk, key: EncodingKey::from_ec_der(der.as_ref()) }
    }

    fn token(&self, ann: &Actor) -> String {
        let mut claims = ann.claims.clone();
        claims["exp"] = json!(ann.app.clock.now().timestamp() + 3600);
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES384) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    async fn ask(&self, ann: &Actor) -> Reply {
        self.get(ann, "/app/uploads").await
    }

    async fn get(&self, ann: &Actor, path: &str) -> Reply {
        let token = self.token(ann);
        ann.app.send(reqwest::Method::GET, path, |request| request.bearer_auth(token)).await
    }
}

async fn a_new_key_is_waited_for_and_never_called_bad(app: TestApp) {
    let provider = Provider::start().await;
    let (old, new, stranger) = (Signer::new("2026-10"), Signer::new("2026-11"), Signer::new("2026-12"));
    provider.publish(&[&old]);
    app.restart_with(&[("QUAYMASTER_AUTH__JWKS_URL", &provider.url)]).await;
    let ann = app.tenant("acme").user("ann");
    old.ask(&ann).await.ok();

    provider.publish(&[&old, &new]);
    for _ in 0..3 {
        stranger.ask(&ann).await.is_problem(503, "keys-unavailable");
    }
    let told = new.ask(&ann).await;
    let problem = told.is_problem(503, "keys-unavailable");
    let wait = problem["retry_after"].as_i64().unwrap();
    assert!((1..=30).contains(&wait), "{told}");
    old.ask(&ann).await.ok();
    // The client comes back when it was told to, and strangers were there before.
    app.advance(TimeDelta::seconds(wait));
    stranger.ask(&ann).await.is_problem(401, "unauthenticated");
    new.ask(&ann).await.ok();

    // A key that was withdrawn is a bad one, whoever else is about.
    provider.publish(&[&new]);
    app.advance(TimeDelta::seconds(30));
    stranger.ask(&ann).await.is_problem(401, "unauthenticated");
    stranger.ask(&ann).await.is_problem(503, "keys-unavailable");
    old.ask(&ann).await.is_problem(401, "unauthenticated");
}

/// The client closes while the server waits for the keys by which it knows the client: its request is read after that.
async fn what_a_client_sent_before_it_went_is_what_is_done(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 1).await;
    let provider = Provider::taking(Duration::from_secs(1)).await;
    let signer = Signer::new("2026-11");
    provider.publish(&[&signer]);
    app.restart_with(&[("QUAYMASTER_AUTH__JWKS_URL", &provider.url)]).await;
    let whole =
        json!({"file_name": "a.txt", "file_size": 1, "batch_reference": "b", "client_reference": "c"}).to_string();
    let cancel = format!("/app/uploads/{}/cancel", note.id);
    for (path, body, length) in
        [(cancel.as_str(), "", 40), (cancel.as_str(), "{}", 40), ("/app/uploads/initiate", &whole, whole.len())]
    {
        let mut raw = Raw::open(&app).await;
        let (host, token) = (raw.host, signer.token(&ann));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        assert!(raw.send(&head).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let started = Instant::now();
    while signer.get(&ann, "/app/batches/b").await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "what was sent whole is done");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let session = signer.get(&ann, &format!("/app/uploads/{}", note.id)).await.ok();
    assert_eq!(session["status"], "UPLOADING", "what was not sent whole is not");
}

async fn claims_are_found_where_the_issuer_puts_them(app: TestApp) {
    app.restart_with(&[
        ("QUAYMASTER_AUTH__CLAIMS__SUB", "email"),
        ("QUAYMASTER_AUTH__CLAIMS__TENANT_ID", "https://example.com/tenant"),
        ("QUAYMASTER_AUTH__CLAIMS__BRAND_IDS", "app_metadata.brand.ids"),
        ("QUAYMASTER_AUTH__CLAIMS__PERMISSIONS", "realm_access.roles"),
    ])
    .await;
    let acme = app.tenant("acme");
    let claims = json!({
        "sub": "idp|1", "email": "ann@example.com", "https://example.com/tenant": acme.id,
        "app_metadata": {"brand": {"ids": [acme.brand("main")]}}, "realm_access": {"roles": ["*", "offline_access"]},
    });
    let ann = Actor { claims, ..acme.user("ann") };
    let note = ann.initiate("note.txt", 1).await;
    assert_eq!(note.session["created_by"], "ann@example.com");
    ann.cancel(&note).await.ok();
    acme.user("ann").list("").await.is_problem(401, "unauthenticated");
    // The command makes tokens that this server believes.
    let token = app.command(&["token", "--tenant", "acme", "--user", "bob@example.com"]).await;
    assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
    let token = String::from_utf8(token.stdout).unwrap();
    app.send(reqwest::Method::GET, "/app/uploads", |request| request.bearer_auth(token.trim())).await.ok();
}

async fn the_record_tells_people_from_the_machine(app: TestApp) {
    let (ann, ola) = (app.tenant("acme").user("ann"), app.operator("ola"));
    for name in ["system", "cli"] {
        ann.clone().with("sub", json!(name)).list("").await.is_problem(401, "unauthenticated");
        app.operator(name).get("/admin/actions").await.is_problem(401, "unauthenticated");
    }
    let (one, two) = (ann.initiate("one", 1).await, ann.initiate("two", 1).await);
    ola.post(&format!("/admin/uploads/{}/cancel", one.id), &json!({})).await.ok();
    assert!(app.command(&["session", "cancel", &two.id]).await.status.success());
    for (upload, who) in [(&one, ("ola", "operator")), (&two, ("cli", "command"))] {
        let events = ann.get(&format!("/app/uploads/{}/events", upload.id)).await.ok();
        let actors: Vec<_> =
            events["data"].as_array().unwrap().iter().map(|e| (&e["actor"], &e["actor_kind"])).collect();
        assert_eq!(actors[..2], [(&json!("ann"), &json!("user")); 2]);
        assert_eq!(actors[2], (&json!(who.0), &json!(who.1)));
    }
    ola.patch("/admin/tenants/acme", &json!({"quota_bytes": null})).await.ok();
    assert!(app.command(&["uploads", "cleanup"]).await.status.success());
    let actions = ola.get("/admin/actions?limit=2").await.ok();
    let who = |n: usize| (&actions["data"][n]["actor"], &actions["data"][n]["actor_kind"]);
    assert_eq!(who(0), (&json!("cli"), &json!("command")));
    assert_eq!(who(1), (&json!("ola"), &json!("operator")));
    let run = ola.get("/admin/runs?limit=1").await.ok()["data"][0].clone();
    assert_eq!((&run["actor"], &run["actor_kind"]), (&json!("cli"), &json!("command")));
}

/// A stream of events, read up to so many ids; the one that it begins with is the first.
async fn ids(who: &Actor, url: &str, last: Option<&str>, count: usize) -> Vec<String> {
    let mut request = who.app.http.get(format!("{url}/app/events")).bearer_auth(who.token());
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut text = String::new();
    loop {
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        let ids: Vec<String> = whole.lines().filter_map(|line| Some(line.strip_prefix("id: ")?.to_owned())).collect();
        if ids.len() >= count {
            return ids;
        }
        let chunk = tokio::time::timeout(Duration::from_secs(60), response.chunk()).await;
        let chunk = chunk.expect("something is sent in time").unwrap().expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

async fn ids_of_live_events_tell_nothing_of_others(app: TestApp) {
    let (ann, gil) = (app.tenant("acme").user("ann"), app.tenant("globex").user("gil"));
    let url = app.url("");
    ann.initiate("a", 1).await;
    gil.initiate("g", 1).await;
    ann.initiate("b", 1).await;
    let own = ids(&ann, &url, Some("0"), 5).await;
    let theirs = ids(&gil, &url, Some("0"), 3).await;
    // Not a number among them, none in an order, and all of one length.
    for id in own.iter().chain(&theirs) {
        assert!(id.len() == 43 && id.parse::<i128>().is_err(), "{id:?}");
    }
    // The same event has the same id whenever it is told; how a stream begins is never twice the same, though nothing
    // happened in between.
    let again = ids(&ann, &url, Some("0"), 5).await;
    assert_eq!(own[1..], again[1..]);
    assert_ne!(own[0], again[0]);
    let (one, other) = (ids(&ann, &url, None, 1).await, ids(&ann, &url, None, 1).await);
    assert_ne!(one, other);

    // What another tenant was told leads nowhere, as what nobody was told.
    for id in [theirs[1].as_str(), &theirs[0], "4", &own[1][1..]] {
        let ask = |request: reqwest::RequestBuilder| request.bearer_auth(ann.token()).header("Last-Event-ID", id);
        let reply = app.send(reqwest::Method::GET, "/app/events", ask).await;
        reply.is_invalid(&[("Last-Event-ID", "invalid-format")]);
        ann.get(&format!("/app/events?last_event_id={id}")).await.is_invalid(&[("?last_event_id", "invalid-format")]);
    }
}

async fn ids_of_live_events_are_good_at_every_process(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let begins = ids(&ann, &app.url(""), None, 1).await.remove(0);
    ann.initiate("a", 1).await;
    let told = ids(&ann, &app.url(""), Some(&begins), 3).await;
    // Another replica, where there may be one, and this one once it was away.
    if app.pair == Pair::Postgres {
        let other = app.another_server().await;
        let there = ids(&ann, &format!("http://{}", other.addr), Some(&told[1]), 2).await;
        assert_eq!(there[1], told[2]);
        other.stop().await;
    }
    app.restart_with(&[]).await;
    let after = ids(&ann, &app.url(""), Some(&told[1]), 2).await;
    assert_eq!(after[1], told[2]);
}
