//! The middleware assembled as in the server, on a real socket.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpResponse, HttpServer, rt, web};
use chrono::{TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use validator::Validate;

use super::*;
use crate::caller::{Brands, Caller, Permission};
use crate::clock::Clock;
use crate::http::body::{Body, Nothing};
use crate::http::heavy_work::HeavyWork;
use crate::http::path::session_of;
use crate::http::problem::{only, unknown_path};
use crate::http::query::Query;
use crate::settings::{Secret, Settings};
use crate::telemetry;
use crate::token::{Grant, mint};
use crate::turns::ActiveTenants;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct Rename {
    #[validate(required, length(max = 10))]
    name: Option<String>,
}

#[derive(Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
}

/// A handler: the caller, their permission, their input; then the engine.
async fn rename(caller: Caller, body: Body<Rename, 200>) -> Result<HttpResponse, Problem> {
    caller.must(Permission::UploadsCreate)?;
    let input = body.parse()?;
    Ok(HttpResponse::Ok().json(json!({ "name": input.name, "user": caller.user() })))
}

async fn list(caller: Caller, query: Query<Page>) -> Result<HttpResponse, Problem> {
    caller.must(Permission::UploadsView)?;
    Ok(HttpResponse::Ok().json(json!({ "limit": query.parse()?.limit })))
}

async fn nothing(_caller: Caller, body: Body<Nothing>) -> Result<HttpResponse, Problem> {
    let Nothing {} = body.parse()?;
    Ok(HttpResponse::Ok().json(json!({})))
}

async fn broken() -> Result<HttpResponse, Problem> {
    panic!("a bug")
}

async fn failing() -> Result<HttpResponse, Problem> {
    Err(Problem::internal(Some("SELECT secret".into())))
}

async fn id(id: RequestId) -> String {
    id.as_str().to_owned()
}

struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let text = "[server]\nbody_timeout_secs = 1\n[cors]\nallowed_origins = [\"https://app.example.com\"]\n";
        let secret = ("JWT_SECRET".to_owned(), SECRET.to_owned());
        let settings = Settings::parse(Some(text), [secret]).unwrap();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            rt::System::new().block_on(async {
                let door = Data::new(
                    Door::new(&settings, Clock::default(), HeavyWork::new(1, &ActiveTenants::default()).unwrap())
                        .unwrap(),
                );
                let server = HttpServer::new(move || {
                    App::new()
                        .app_data(door.clone())
                        .service(
                            web::resource("/things/{id}")
                                .route(web::get().to(list))
                                .route(web::put().to(rename))
                                .default_service(only(vec!["GET", "PUT"])),
                        )
                        .route("/nothing", web::post().to(nothing))
                        .route("/broken", web::get().to(broken))
                        .route("/failing", web::get().to(failing))
                        .route("/id", web::get().to(id))
                        .default_service(unknown_path())
                        .wrap(from_fn(catch_panic))
                        .wrap(cors(&settings.cors))
                        .wrap(from_fn(observe))
                })
                .workers(1)
                .client_request_timeout(Duration::from_millis(500))
                .bind(("127.0.0.1", 0))
                .unwrap();
                let address = server.addrs()[0];
                let server = server.run();
                tell.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, handle) = told.recv().unwrap();
        Self { address, handle, thread: Some(thread) }
    }

    /// Sends the text unchanged, and reads until the server closes the connection.
    fn raw(&self, request: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        Reply::read(&String::from_utf8(answer).unwrap())
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{length}{headers}\r\n{body}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.handle.stop(false);
        rt::System::new().block_on(stopped);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn read(answer: &str) -> Self {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not a problem: {self:?}"));
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), Some(CONTENT_TYPE));
        assert_eq!(body["instance"].as_str(), self.header("x-request-id"), "{self:?}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        body
    }
}

const JSON: &str = "Content-Type: application/json; charset=utf-8\r\n";

fn bearer(permissions: &[&str], tenant: bool) -> String {
    let permissions: Vec<_> = permissions.iter().map(|name| (*name).to_owned()).collect();
    let grant = Grant {
        user: "ann",
        tenant: tenant.then(entity::TenantId::new),
        brands: Brands::All,
        permissions: &permissions,
        expires_at: Utc::now() + TimeDelta::hours(1),
    };
    let settings = Settings::parse(None, []).unwrap().auth;
    format!("Authorization: Bearer {}\r\n", mint(&settings, &Secret::new(SECRET), &grant))
}

#[test]
fn a_request_passes_all_the_checks() {
    let server = Server::start();
    let ann = bearer(&["*"], true);
    let reply = server.send("PUT", "/things/7", &format!("{ann}{JSON}"), r#"{"name": "x"}"#);
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"name":"x","user":"ann"}"#));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let chunked = format!(
        "PUT /things/7 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{ann}{JSON}\r\n\
         8\r\n{{\"name\":\r\n5\r\n \"x\"}}\r\n0\r\n\r\n"
    );
    assert_eq!(server.raw(&chunked).status, 200);
    assert_eq!(server.send("GET", "/things/7?limit=5&", &ann, "").body, r#"{"limit":5}"#);
    assert_eq!(server.send("POST", "/nothing", &ann, "").status, 200);
    assert_eq!(server.send("POST", "/nothing", &format!("{ann}{JSON}"), "{}").status, 200);
    assert_eq!(
        server.send("POST", "/nothing", &format!("{ann}Content-Length: 0\r\nContent-Type: text/plain\r\n"), "").status,
        200
    );
    assert_eq!(server.send("PUT", "/things/7", &ann.replace("Bearer", "bearer"), "").status, 422);
}

#[test]
fn checks_come_in_their_order() {
    let server = Server::start();
    let (all, none, operator) = (bearer(&["*"], true), bearer(&[], true), bearer(&["operator"], false));
    let put = |headers: &str, body: &str| server.send("PUT", "/things/7", headers, body);
    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(300));

    // 401 before the body is read.
    let reply = put("Content-Type: text/plain\r\n", &large);
    reply.is_problem(401, "unauthenticated");
    assert_eq!(reply.header("www-authenticate"), Some(r#"Bearer realm="quaymaster""#));
    let reply = put("Authorization: Bearer x\r\n", &large);
    reply.is_problem(401, "unauthenticated");
    assert!(reply.header("www-authenticate").unwrap().contains("invalid_token"));
    put("Authorization: Basic eDp5\r\n", "").is_problem(401, "unauthenticated");
    put(&format!("{all}{all}"), "").is_problem(401, "unauthenticated");

    // 413 and 415 before the permission.
    put(&format!("{none}{JSON}"), &large).is_problem(413, "body-too-large");
    put(&none, "{}").is_problem(415, "unsupported-media-type");
    put(&format!("{none}Content-Type: text/plain\r\n"), "{}").is_problem(415, "unsupported-media-type");
    put(&format!("{none}{JSON}Content-Encoding: gzip\r\n"), "{}").is_problem(415, "unsupported-media-type");
    let chunked = format!(
        "PUT /things/7 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{none}{JSON}\r\n\
         12d\r\n{}\r\n0\r\n\r\n",
        "x".repeat(0x12d)
    );
    server.raw(&chunked).is_problem(413, "body-too-large");

    // 403 before 400 and 422.
    put(&format!("{none}{JSON}"), "not json").is_problem(403, "permission-denied");
    server.send("GET", "/things/7?colour=red", &none, "").is_problem(403, "permission-denied");
    put(&format!("{operator}{JSON}"), "{}").is_problem(403, "permission-denied");

    put(&format!("{all}{JSON}"), "not json").is_problem(400, "malformed-body");
    let problem = put(&format!("{all}{JSON}"), r#"{"name": 5, "colour": 1}"#).is_problem(422, "validation-failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);
    let problem = server.send("GET", "/things/7?colour=red", &all, "").is_problem(422, "validation-failed");
    assert_eq!(problem["errors"][0]["pointer"], "?colour");
}

#[test]
fn paths_and_methods_that_lead_nowhere() {
    let server = Server::start();
    server.send("GET", "/nowhere", "", "").is_problem(404, "not-found");
    let reply = server.send("DELETE", "/things/7", "", "");
    reply.is_problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), Some("GET, HEAD, PUT"));
}

#[test]
fn a_slow_body_ends_with_408() {
    let server = Server::start();
    let ann = bearer(&["*"], true);
    let head = format!("PUT /things/7 HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n{ann}{JSON}\r\n{{");
    server.raw(&head).is_problem(408, "request-timeout");
    assert_eq!(server.raw("PUT /things/7 HTTP/1.1\r\nHost:").status, 408, "a slow head, which actix itself answers");
}

#[test]
fn a_panic_is_one_requests_own() {
    let server = Server::start();
    let origin = "Origin: https://app.example.com\r\n";
    let reply = server.send("GET", "/broken", origin, "");
    let body = reply.is_problem(500, "internal");
    assert!(!body.to_string().contains("a bug"));
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example.com"), "pages can read it");
    let body = server.send("GET", "/failing", "", "").is_problem(500, "internal");
    assert!(!body.to_string().contains("SELECT"));
    assert_eq!(server.send("GET", "/id", "", "").status, 200);
}

#[test]
fn an_id_goes_with_every_request() {
    let server = Server::start();
    let own = server.send("GET", "/id", "X-Request-Id: row-3\r\n", "");
    assert_eq!((own.header("x-request-id"), own.body.as_str()), (Some("row-3"), "row-3"));
    for forged in ["", "a b", "\u{fc}", &"x".repeat(129)] {
        let reply = server.send("GET", "/id", &format!("X-Request-Id: {forged}\r\n"), "");
        let id: Uuid = reply.header("x-request-id").unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}

#[test]
fn pages_of_other_origins_are_kept_out() {
    let server = Server::start();
    let preflight = |origin: &str| {
        let headers = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\
             Access-Control-Request-Headers: authorization,content-type,idempotency-key\r\n"
        );
        server.send("OPTIONS", "/things/7", &headers, "")
    };
    let allowed = preflight("https://app.example.com");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some("https://app.example.com")));
    assert!(preflight("https://evil.example").header("access-control-allow-origin").is_none());

    let read = server.send("GET", "/nowhere", "Origin: https://app.example.com\r\n", "");
    assert!(read.header("access-control-expose-headers").unwrap().contains("retry-after"), "{read:?}");
    let read = server.send("GET", "/nowhere", "Origin: https://evil.example\r\n", "");
    assert!(read.header("access-control-allow-origin").is_none());
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn recorded(caller: Caller, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    caller.must(Permission::UploadsView)?;
    verb(session_of(&id)?).await;
    Ok(HttpResponse::Ok().finish())
}

#[tracing::instrument(name = "session.verb", skip_all, fields(session.id = %id))]
async fn verb(id: SessionId) {
    tracing::warn!("a verb's own");
}

#[test]
fn a_request_is_one_line_without_secrets() {
    let session = SessionId::new();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = telemetry::subscriber("info", true, false, move || writer.clone()).unwrap();
    let _guard = tracing::subscriber::set_default(subscriber);

    let settings = Settings::parse(None, [("JWT_SECRET".to_owned(), SECRET.to_owned())]).unwrap();
    let authorization = bearer(&["*"], true);
    let token = authorization.trim().split(": ").nth(1).unwrap();
    rt::System::new().block_on(async {
        let app = App::new()
            .app_data(Data::new(
                Door::new(&settings, Clock::default(), HeavyWork::new(1, &ActiveTenants::default()).unwrap()).unwrap(),
            ))
            .route("/things/{id}", web::get().to(recorded))
            .route("/failing", web::get().to(failing))
            .route("/healthz", web::get().to(HttpResponse::Ok))
            .wrap(from_fn(catch_panic))
            .wrap(from_fn(observe));
        let app = init_service(app).await;
        let thing = format!("/things/{session}?signature=s3cret");
        for path in [&thing, "/failing?signature=s3cret", "/things/7", "/healthz"] {
            let request = TestRequest::get()
                .uri(path)
                .peer_addr("192.0.2.1:1234".parse().unwrap())
                .insert_header((header::AUTHORIZATION, token))
                .insert_header((REQUEST_ID, "r-1"));
            call_service(&app, request.to_request()).await;
        }
    });

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("s3cret") && !text.contains("Bearer") && !text.contains(&token[7..]), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "one for each request, one for what a verb and a failure had to say: {text}");
    let (first, span) = (&lines[1], &lines[1]["spans"][0]);
    assert_eq!((first["level"].as_str(), first["http.status"].as_u64()), (Some("INFO"), Some(200)));
    assert!(first["duration_ms"].as_f64().is_some());
    assert_eq!(span["name"], "http.request");
    assert_eq!(span["http.route"], "/things/{id}");
    assert_eq!((&span["request.id"], &span["client.address"]), (&json!("r-1"), &json!("192.0.2.1")));
    assert_eq!((&span["session.id"], span["tenant.id"].as_str().map(str::len)), (&json!(session), Some(36)));
    assert!(first.get("span").is_none(), "each span is written once");
    assert!(lines[2]["error"].as_str().unwrap().contains("SELECT secret"), "the cause is in the log, once");
    assert_eq!((lines[3]["level"].as_str(), lines[3]["http.status"].as_u64()), (Some("ERROR"), Some(500)));
    let outcomes = [1, 3, 4].map(|n| lines[n]["outcome"].as_str().unwrap());
    assert_eq!(outcomes, ["ok", "internal", "not-found"]);
    assert!(lines[4]["spans"][0].get("session.id").is_none(), "7 is no session's id: {}", lines[4]);

    // A line that a verb logs has the verb's own span, inside of the request's.
    let [outer, inner] = lines[0]["spans"].as_array().unwrap().as_slice() else { panic!("two spans: {}", lines[0]) };
    assert_eq!((&outer["request.id"], &outer["session.id"]), (&json!("r-1"), &json!(session)));
    assert_eq!((&inner["name"], &inner["session.id"]), (&json!("session.verb"), &json!(session)));
}
