//! The edges of HTTP: methods, framing, connections, pages of other origins, and what browsers and old clients send.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kit::{Actor, Fault, MIB, Op, Reply, TestApp, stories};

stories![
    whatever_answers_get_answers_head,
    a_head_waits_for_nothing_and_takes_no_place,
    a_client_of_http_1_0_reads_events_without_chunks,
    an_idle_connection_is_kept_and_holds_up_no_stop,
    pages_send_the_headers_that_their_frameworks_add,
    only_the_headers_that_are_set_are_allowed,
    the_pages_of_the_docs_run_no_others_scripts,
    what_browsers_say_of_unknown_types_is_nothing,
    a_body_may_begin_with_a_byte_order_mark,
    a_reference_is_for_one_type,
    lists_find_a_client_reference,
    a_health_check_spares_replicas_whose_store_is_away,
];

async fn head(actor: &Actor, path: &str) -> Reply {
    actor.app.send(Method::HEAD, path, |request| request.bearer_auth(actor.token())).await
}

async fn whatever_answers_get_answers_head(app: TestApp) {
    let all = app.tenant("acme").user("ann").permissions(&["*", "operator"]);
    let body = json!({"file_name": "reel.mov", "file_size": 6 * MIB, "batch_reference": "b"});
    let reel = all.initiate_with(&body).await.created()["upload_session_id"].as_str().unwrap().to_owned();
    let note = all.initiate("note.txt", 1).await;
    assert_eq!(all.send(&note).await, 200);
    let asset = all.complete(&note).await.created()["asset_id"].as_str().unwrap().to_owned();

    let document = all.get("/openapi.json").await.ok();
    let described = document["paths"].as_object().unwrap();
    let gets = described.iter().filter(|(_, operations)| operations.get("get").is_some());
    let mut paths: Vec<String> = gets.map(|(path, _)| path.clone()).filter(|path| path != "/app/events").collect();
    paths.extend(["/openapi.json", "/docs/", "/docs/swagger-ui.css", "/docs/nothing", "/nowhere"].map(str::to_owned));
    assert!(paths.len() > 25, "{paths:?}");
    for path in paths {
        let id = if path.starts_with("/app/assets") { &asset } else { &reel };
        let path = path.replace("{batch_reference}", "b").replace("{slug}", "acme").replace("{id}", id);
        let path = match path.as_str() {
            "/admin/uploads" => "/admin/uploads?tenant=acme".to_owned(),
            wait if wait.ends_with("/wait") => format!("{wait}?timeout=0"),
            _ => path,
        };
        let (get, head) = (all.get(&path).await, head(&all, &path).await);
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{head}");
        // All but what is of one request.
        let compared = |reply: &Reply| {
            let mut headers: HeaderMap = reply.headers.clone();
            for own in ["date", "x-request-id"] {
                headers.remove(own);
            }
            headers
        };
        assert_eq!(compared(&head), compared(&get), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    }

    let nobody = app.send(Method::HEAD, "/app/uploads", |request| request).await;
    assert_eq!((nobody.status, nobody.header("www-authenticate").is_empty()), (401, false));
    assert_eq!(head(&all, "/app/uploads/initiate-batch").await.status, 405);
    for (path, allow) in [("/healthz", "GET, HEAD"), ("/docs/", "GET, HEAD"), ("/admin/tenants", "GET, HEAD, POST")] {
        let wrong = app.send(Method::PUT, path, |request| request.bearer_auth(all.token())).await;
        wrong.is_problem(405, "method-not-allowed");
        assert_eq!(wrong.header("allow"), allow, "{path}");
    }
}

async fn a_head_waits_for_nothing_and_takes_no_place(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_FEED__READERS_MAX", "1")]).await;
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 1).await;
    let wait = format!("/app/uploads/{}/wait?timeout=60", note.id);
    let begun = Instant::now();
    assert_eq!(head(&ann, &wait).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());

    let reader = app.http.get(app.url("/app/events")).bearer_auth(ann.token()).send().await.unwrap();
    assert_eq!(reader.status(), 200);
    ann.get("/app/events").await.is_problem(503, "too-many-readers");
    for _ in 0..3 {
        let head = head(&ann, "/app/events").await;
        assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
        assert!(head.body.is_empty() && head.header("content-length").is_empty(), "{head}");
    }
}

/// A connection on which a story writes what it likes.
async fn connection(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.url("").trim_start_matches("http://")).await.unwrap()
}

/// Reads until the text has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    let reading = async {
        while !read.contains(text) {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).await.unwrap();
            assert!(count > 0, "the connection ended after {read:?}");
            read.push_str(std::str::from_utf8(&some[..count]).unwrap());
        }
    };
    let come = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(come.is_ok(), "{text:?} does not come, only {read:?}");
    read
}

async fn a_client_of_http_1_0_reads_events_without_chunks(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut stream = connection(&app).await;
    let request =
        format!("GET /app/events HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer {}\r\n\r\n", ann.token());
    stream.write_all(request.as_bytes()).await.unwrap();
    let begun = read_until(&mut stream, "\n\n").await;
    let (head, body) = begun.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    let head = head.to_lowercase();
    assert!(!head.contains("transfer-encoding") && !head.contains("keep-alive"), "{head}");
    assert!(body.starts_with("retry: "), "{body:?}");

    ann.initiate("note.txt", 1).await;
    let event = read_until(&mut stream, "upload.opened").await;
    assert!(event.starts_with("id: "), "{event:?}");
    // A body with a length leaves the connection open, as it was asked to.
    let mut stream = connection(&app).await;
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
        assert!(read_until(&mut stream, "\"ok\"}").await.contains("content-length: "));
    }
}

async fn an_idle_connection_is_kept_and_holds_up_no_stop(app: TestApp) {
    let mut idle = connection(&app).await;
    let ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    idle.write_all(ask).await.unwrap();
    read_until(&mut idle, "\"ok\"}").await;
    // Longer than the five seconds that the web framework keeps one by itself.
    tokio::time::sleep(Duration::from_secs(7)).await;
    idle.write_all(ask).await.unwrap();
    read_until(&mut idle, "\"ok\"}").await;

    let begun = Instant::now();
    app.stop_server().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "the grace is 30 s: {:?}", begun.elapsed());
    app.start_server().await;
}

async fn preflight(app: &TestApp, origin: &str, method: &str, headers: &str) -> Reply {
    app.send(Method::OPTIONS, "/app/uploads", |request| {
        request
            .header("Origin", origin)
            .header("Access-Control-Request-Method", method)
            .header("Access-Control-Request-Headers", headers)
    })
    .await
}

const PAGE: &str = "https://app.example.com";

async fn pages_send_the_headers_that_their_frameworks_add(app: TestApp) {
    app.restart_with(&[("CORS_ALLOWED_ORIGINS", PAGE)]).await;
    for headers in ["x-requested-with", "authorization,traceparent,sentry-trace,baggage"] {
        for method in ["GET", "HEAD", "POST"] {
            let allowed = preflight(&app, PAGE, method, headers).await;
            assert_eq!(allowed.status, 200, "{allowed}");
            assert_eq!(allowed.header("access-control-allow-headers"), headers);
            assert_eq!(allowed.header("access-control-allow-origin"), PAGE);
        }
    }
    preflight(&app, "https://evil.example", "GET", "authorization").await.is_problem(403, "preflight-refused");
    preflight(&app, PAGE, "TRACE", "authorization").await.is_problem(403, "preflight-refused");
}

async fn only_the_headers_that_are_set_are_allowed(app: TestApp) {
    let set = [("CORS_ALLOWED_ORIGINS", PAGE), ("QUAYMASTER_CORS__ALLOWED_HEADERS", "X-Requested-With, baggage")];
    app.restart_with(&set).await;
    for allowed in ["x-requested-with,baggage", "Authorization,Content-Type,Idempotency-Key,Last-Event-ID,X-Request-Id"]
    {
        assert_eq!(preflight(&app, PAGE, "POST", allowed).await.status, 200, "{allowed}");
    }
    preflight(&app, PAGE, "POST", "authorization,traceparent").await.is_problem(403, "preflight-refused");
}

async fn the_pages_of_the_docs_run_no_others_scripts(app: TestApp) {
    let get = |path: &'static str| app.send(Method::GET, path, |request| request);
    for path in ["/docs/", "/docs/index.html", "/docs/swagger-initializer.js"] {
        let page = get(path).await;
        assert_eq!(page.status, 200, "{page}");
        let policy = page.header("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert_eq!(page.header("x-frame-options"), "DENY");
    }
    // Under that policy a script in the page itself would not run.
    let page = String::from_utf8(get("/docs/").await.body).unwrap();
    assert!(page.matches("<script").count() == page.matches("<script src=").count(), "{page}");
    get("/docs/nothing.js").await.is_problem(404, "not-found");
}

async fn what_browsers_say_of_unknown_types_is_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let file = json!({"file_name": "a.xyz", "file_size": 1, "mime_type": ""});
    assert_eq!(ann.initiate_with(&file).await.created()["mime_type"], "application/octet-stream");
    let batch = ann.initiate_batch(&json!({"files": [file]})).await.created();
    assert_eq!(batch["uploads"][0]["upload"]["mime_type"], "application/octet-stream");
    assert_eq!(batch["uploads"][0]["upload"]["upload_headers"]["content-type"], "application/octet-stream");
}

async fn a_body_may_begin_with_a_byte_order_mark(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let post = |body: &'static str| {
        let token = ann.token();
        app.send(Method::POST, "/app/uploads/initiate", move |request| {
            request.bearer_auth(token).header("Content-Type", "application/json").body(body)
        })
    };
    post("\u{feff}{\"file_name\": \"a\", \"file_size\": 1}").await.created();
    post("\u{feff}").await.is_invalid(&[("/file_name", "required"), ("/file_size", "required")]);
    post("\u{feff}\u{feff}{}").await.is_problem(400, "malformed-body");
}

async fn a_reference_is_for_one_type(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let of = |mime_type: Value| json!({"file_name": "a", "file_size": 1, "batch_reference": "b", "client_reference": "c", "mime_type": mime_type});
    let first = ann.initiate_with_key("key", &of(json!("image/png"))).await.created();
    let again = ann.initiate_with_key("key", &of(json!("image/png"))).await.ok();
    assert_eq!(again["upload_session_id"], first["upload_session_id"]);
    for other in [json!("image/jpeg"), json!(""), Value::Null] {
        ann.initiate_with(&of(other.clone())).await.is_problem(409, "reference-conflict");
        ann.initiate_with_key("key", &of(other)).await.is_problem(409, "reference-conflict");
    }
}

async fn lists_find_a_client_reference(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut ids = Vec::new();
    for (batch, client) in [("x", "row-1"), ("x", "row-2"), ("y", "row-1")] {
        let file = json!({"file_name": "a", "file_size": 1, "batch_reference": batch, "client_reference": client});
        ids.push(ann.initiate_with(&file).await.created()["upload_session_id"].clone());
    }
    ann.initiate("nameless", 1).await;
    let found = |page: Value| {
        let sessions = page["data"].as_array().unwrap();
        sessions.iter().map(|session| session["upload_session_id"].clone()).collect::<Vec<_>>()
    };
    for (query, wanted) in [
        ("client_reference=row-1", vec![&ids[2], &ids[0]]),
        ("client_reference=row-1&batch_reference=x", vec![&ids[0]]),
        ("client_reference=row-2&status=UPLOADING", vec![&ids[1]]),
        ("client_reference=row-2&status=FAILED", vec![]),
        ("client_reference=row-3", vec![]),
    ] {
        assert_eq!(found(ann.list(query).await.ok()).iter().collect::<Vec<_>>(), wanted, "{query}");
        let admin = app.operator("ola").get(&format!("/admin/uploads?tenant=acme&{query}")).await.ok();
        assert_eq!(found(admin).iter().collect::<Vec<_>>(), wanted, "{query}");
    }
    ann.list("client_reference=").await.is_invalid(&[("?client_reference", "too-short")]);
    let words = ["session", "list", "--tenant", "acme", "--reference", "row-2", "--json"];
    let said = String::from_utf8(app.command(&words).await.stdout).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["upload_session_id"], ids[1]);
}

async fn a_health_check_spares_replicas_whose_store_is_away(app: TestApp) {
    let image = include_str!("../../Dockerfile");
    let check = image.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
    let words: Vec<String> = serde_json::from_str(&check[check.find('[').unwrap()..]).unwrap();
    let server = app.url("");
    let ask = async |more: &[&str]| {
        let words = words[1..].iter().map(String::as_str).chain(["--server", &server]).chain(more.iter().copied());
        app.command(&words.collect::<Vec<_>>()).await.status.code()
    };
    assert_eq!((words[0].as_str(), ask(&[]).await, ask(&["--ready"]).await), ("quaymaster", Some(0), Some(0)));
    app.store.faults().order(Op::Other, Fault::DropRequest);
    app.readiness(503).await;
    assert_eq!((ask(&[]).await, ask(&["--ready"]).await), (Some(0), Some(1)));
    app.store.heal();
    app.stop_server().await;
    assert_eq!(ask(&[]).await, Some(1));
    app.start_server().await;
}
