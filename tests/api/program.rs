//! The program itself: its commands, its start, its end; and the embedded default, where store and server die together.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::kit::{CHUNK, MIB, Op, TestApp, free_port, stories};

stories![
    a_request_in_flight_is_finished_before_the_server_stops,
    tenants_are_limited_by_commands,
    sessions_are_ended_by_commands,
    an_operators_token_is_made,
];

async fn a_request_in_flight_is_finished_before_the_server_stops(app: TestApp) {
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let reel = ann.initiate("reel.mov", 6 * MIB).await;
    ann.send_all_parts(&reel).await;
    let held = app.store.faults().hold_answer(Op::CompleteMultipartUpload);
    let completing = {
        let (ann, reel) = (ann.clone(), reel.clone());
        tokio::spawn(async move { ann.complete(&reel).await })
    };
    held.arrived().await;
    let address = app.url("").trim_start_matches("http://").to_owned();
    let stopping = {
        let app = app.clone();
        tokio::spawn(async move { app.stop_server().await })
    };
    // From SIGTERM on nobody new gets in.
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    held.release();
    let asset = completing.await.unwrap().created();
    stopping.await.unwrap();
    app.start_server().await;
    assert_eq!(ann.complete(&reel).await.ok(), asset);
}

/// A folder with everything in it, and the program that works on it.
pub struct Embedded {
    pub folder: TempDir,
    port: u16,
    store_port: u16,
    pub http: reqwest::Client,
}

impl Embedded {
    pub fn new() -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), port: free_port(), store_port: free_port(), http }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
        command
            .args(words)
            .env_clear()
            .env("PORT", self.port.to_string())
            .env("QUAYMASTER_EMBEDDED__PORT", self.store_port.to_string())
            .env("QUAYMASTER_DATA_DIR", self.folder.path().join("data"))
            .env("LOG_LEVEL", "warn")
            .kill_on_drop(true);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().await.unwrap()
    }

    /// Standard output of a command that must succeed, without its last line break.
    pub async fn said(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub async fn serve(&self) -> Child {
        self.serve_with(&[]).await
    }

    /// With more in its environment.
    pub async fn serve_with(&self, env: &[(&str, String)]) -> Child {
        self.serve_until("/readyz", env).await
    }

    /// Until this path answers 200.
    pub async fn serve_until(&self, path: &str, env: &[(&str, String)]) -> Child {
        let env = env.iter().map(|(name, value)| (name, value));
        let child = self.command(&["serve"]).envs(env).stderr(Stdio::inherit()).spawn().unwrap();
        for _ in 0..600 {
            let ready = self.http.get(self.url(path)).send().await;
            if ready.is_ok_and(|answer| answer.status() == 200) {
                return child;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not become ready");
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        let answer = self.http.get(self.url(path)).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.http.post(self.url(path)).bearer_auth(token).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn everything_embedded_survives_a_kill() {
    let embedded = Embedded::new();
    embedded.said(&["tenant", "create", "acme"]).await;
    let token = embedded.said(&["token", "--tenant", "acme"]).await;
    let mut server = embedded.serve().await;

    let chunk = usize::try_from(CHUNK).unwrap();
    // The default cuts into 8 MiB: two parts.
    let size = 2 * chunk;
    let body = json!({"file_name": "reel.mov", "file_size": size});
    let (status, session) = embedded.post(&token, "/app/uploads/initiate", &body).await;
    assert_eq!(status, 201, "{session}");
    let id = session["upload_session_id"].as_str().unwrap();
    let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    for number in [1, 2] {
        let path = format!("/app/uploads/{id}/multipart-part-url");
        let (status, url) = embedded.post(&token, &path, &json!({"part_number": number})).await;
        assert_eq!(status, 200, "{url}");
        let from = usize::try_from(url["offset"].as_u64().unwrap()).unwrap();
        let part = bytes[from..from + usize::try_from(url["size"].as_u64().unwrap()).unwrap()].to_vec();
        let sent = embedded.http.put(url["upload_url"].as_str().unwrap()).body(part).send().await.unwrap();
        assert_eq!(sent.status(), 200);
        // What was answered is there after a kill.
        server.kill().await.unwrap();
        server = embedded.serve().await;
    }
    let complete = json!({"upload_session_id": id});
    let (status, asset) = embedded.post(&token, "/app/assets/upload/complete", &complete).await;
    assert_eq!(status, 201, "{asset}");
    server.kill().await.unwrap();
    server = embedded.serve().await;
    let (status, mut again) = embedded.post(&token, "/app/assets/upload/complete", &complete).await;
    // It may have been promoted meanwhile; all else stays.
    assert!(["UPLOADED", "READY"].contains(&again["status"].as_str().unwrap()), "{again}");
    again["status"] = asset["status"].clone();
    assert_eq!((status, again), (200, asset));
    server.kill().await.unwrap();
}

/// A database that takes connections and says nothing.
#[tokio::test]
async fn a_start_that_waits_ends_when_it_is_asked_to() {
    let embedded = Embedded::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://quaymaster@{}/quaymaster", silent.local_addr().unwrap());
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("QUAYMASTER_DATABASE__ACQUIRE_TIMEOUT_SECS", "60"),
        ("AUDIT_KEY", "an-audit-key-of-a-database-that-never-answers"),
        ("JWT_SECRET", "a-secret-for-tokens-that-nobody-will-ever-make"),
    ];
    let mut server = embedded.command(&["serve"]).envs(env).spawn().unwrap();
    let _connection = tokio::select! {
        connection = silent.accept() => connection.unwrap(),
        ended = server.wait() => panic!("it ended before it asked the database: {ended:?}"),
    };
    let pid = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(20), server.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(143));
}

#[tokio::test]
async fn health_is_asked_of_the_server_and_of_no_proxy() {
    let embedded = Embedded::new();
    let mut server = embedded.serve().await;
    let proxy = ("HTTP_PROXY", "http://127.0.0.1:1");
    let health = embedded.command(&["health"]).envs([proxy]).output().await.unwrap();
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    server.kill().await.unwrap();
}

#[tokio::test]
async fn a_tenant_made_twice_is_one_tenant() {
    let embedded = Embedded::new();
    let first: Value = serde_json::from_str(&embedded.said(&["tenant", "create", "acme"]).await).unwrap();
    let again: Value = serde_json::from_str(&embedded.said(&["tenant", "create", "acme"]).await).unwrap();
    assert_eq!(first, again);
    assert!(first["brands"]["main"].is_string(), "{first}");
    let grown = embedded.said(&["tenant", "create", "acme", "--brand", "shoes"]).await;
    let grown: Value = serde_json::from_str(&grown).unwrap();
    assert_eq!(grown["tenant_id"], first["tenant_id"]);
    assert_eq!(grown["brands"]["main"], first["brands"]["main"]);
    assert!(grown["brands"]["shoes"].is_string(), "{grown}");
}

#[tokio::test]
async fn the_start_is_refused_where_it_could_not_go_well() {
    let embedded = Embedded::new();
    for (name, value, says) in [
        ("DATABASE_URL", "postgres://localhost/x", "JWT_SECRET"),
        ("DATABASE_URL", "postgres://localhost/x", "AUDIT_KEY"),
        ("QUAYMASTER_SERVER__PROT", "1", "prot"),
        ("QUAYMASTER_SESSIONS__EXPIRES_AFTER_SECS", "soon", "expires_after_secs"),
    ] {
        let output = embedded.command(&["serve"]).env(name, value).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name}");
        assert!(said.to_lowercase().contains(&says.to_lowercase()), "{name}: {said}");
    }
    let output = embedded.run(&["token", "--tenant", "nobody"]).await;
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}

/// An outside store may be behind the proxy that the environment names, as for any client of S3.
#[tokio::test]
async fn the_store_is_reached_through_the_proxy_of_the_environment() {
    let embedded = Embedded::new();
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let env = [
        ("QUAYMASTER_STORAGE__BUCKET", "media".to_owned()),
        ("QUAYMASTER_STORAGE__ENDPOINT", "http://store.invalid".to_owned()),
        ("QUAYMASTER_STORAGE__REGION", "us-east-1".to_owned()),
        ("QUAYMASTER_STORAGE__ACCESS_KEY_ID", "id".to_owned()),
        ("QUAYMASTER_STORAGE__SECRET_ACCESS_KEY", "secret".to_owned()),
        ("HTTP_PROXY", format!("http://{}", proxy.local_addr().unwrap())),
    ];
    let mut server = embedded.serve_until("/healthz", &env).await;
    let asked = async {
        let (socket, _) = proxy.accept().await.unwrap();
        BufReader::new(socket).lines().next_line().await.unwrap().unwrap()
    };
    let ready = embedded.http.get(embedded.url("/readyz")).send();
    let (line, _) = tokio::join!(tokio::time::timeout(Duration::from_secs(20), asked), ready);
    let line = line.expect("the proxy is asked");
    assert!(line.contains(" http://store.invalid/media"), "{line}");
    server.kill().await.unwrap();
}

/// One command of the program, on the back ends of a story whose server is running.
async fn command(app: &TestApp, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
    command.args(words).env_clear().envs(app.env()).kill_on_drop(true);
    command.output().await.unwrap()
}

async fn said(app: &TestApp, words: &[&str]) -> String {
    let output = command(app, words).await;
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

async fn said_json(app: &TestApp, words: &[&str]) -> Value {
    let said = said(app, &[words, &["--json"]].concat()).await;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
}

async fn refused(app: &TestApp, words: &[&str], code: i32, says: &str) {
    let output = command(app, words).await;
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {why}");
    assert!(output.stdout.is_empty() && why.contains(says), "{words:?}: {why}");
}

async fn tenants_are_limited_by_commands(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let tenant = said_json(&app, &["tenant", "quota", "acme", "--bytes", "10GiB", "--live-sessions", "1"]).await;
    assert_eq!((&tenant["quota_bytes"], &tenant["quota_live_sessions"]), (&json!(10_737_418_240_u64), &json!(1)));
    // In force for the server that runs.
    ann.initiate("a", 7).await;
    let body = json!({"file_name": "b", "file_size": 1});
    ann.initiate_with(&body).await.is_problem(409, "quota-exceeded");
    let tenant = said_json(&app, &["tenant", "quota", "acme", "--live-sessions", "none"]).await;
    assert_eq!((&tenant["quota_bytes"], &tenant["quota_live_sessions"]), (&json!(10_737_418_240_u64), &Value::Null));
    assert_eq!(said_json(&app, &["tenant", "quota", "acme"]).await, tenant, "to look changes nothing");

    assert!(said_json(&app, &["tenant", "suspend", "acme"]).await["suspended_at"].is_string());
    ann.initiate_with(&body).await.is_problem(409, "tenant-suspended");
    let table = said(&app, &["tenant", "list"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("TENANT") && lines[1].starts_with("acme") && lines[2].starts_with("globex"),
        "{table}"
    );
    assert!(lines[1].ends_with("7 B  10.00 GiB"), "{table}");
    assert_eq!(said_json(&app, &["tenant", "resume", "acme"]).await["suspended_at"], Value::Null);
    ann.initiate("b", 1).await;

    let usage = said_json(&app, &["tenant", "usage", "acme", "--days", "2"]).await;
    assert_eq!(usage["days"].as_array().unwrap().len(), 2);
    assert_eq!((&usage["live_sessions"], &usage["days"][1]["opened"]), (&json!(2), &json!(2)));
    assert!(said(&app, &["tenant", "usage", "acme"]).await.contains("COMPLETED"));

    refused(&app, &["tenant", "quota", "acme", "--bytes", "many"], 2, "10GiB").await;
    refused(&app, &["tenant", "quota", "acme", "--live-sessions", "few"], 2, "whole number").await;
    refused(&app, &["tenant", "usage", "acme", "--days", "93"], 2, "92").await;
    refused(&app, &["tenant", "suspend", "nobody"], 1, "nobody").await;
}

async fn sessions_are_ended_by_commands(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (reel, note) = (ann.initiate("reel.mov", 6 * MIB).await, ann.initiate("no\u{202e}te.txt", 1).await);
    let table = said(&app, &["session", "list", "--tenant", "acme"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[1].starts_with(&note.id) && lines[2].starts_with(&reel.id), "{table}");
    let json = said(
        &app,
        &["session", "list", "--tenant", "acme", "--user", "ann", "--status", "uploading", "--limit", "1", "--json"],
    )
    .await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), ann.session(&note).await.ok());
    assert_eq!(said(&app, &["session", "list", "--tenant", "acme", "--status", "FAILED", "--json"]).await, "");

    let path = format!("/admin/uploads/{}?tenant=acme", reel.id);
    let shown = said_json(&app, &["session", "show", &reel.id, "--tenant", "acme"]).await;
    assert_eq!(shown, app.operator("ola").get(&path).await.ok());
    assert!(said(&app, &["session", "show", &reel.id, "--tenant", "acme"]).await.contains("0 parts of 0 bytes"));

    let failed = said_json(&app, &["session", "fail", &reel.id, "--tenant", "acme", "--reason", "not theirs"]).await;
    assert_eq!((&failed["status"], &failed["failure_reason"]), (&json!("FAILED"), &json!("operator")));
    let events = app.operator("ola").get(&path).await.ok()["events"].clone();
    assert_eq!(
        (&events[2]["actor"], &events[2]["actor_kind"], &events[2]["details"]),
        (&json!("cli"), &json!("command"), &json!({"note": "not theirs"}))
    );
    assert!(said(&app, &["session", "cancel", &note.id]).await.contains("CANCELLED"), "whoever's it is");
    refused(&app, &["session", "cancel", "0199d2c4-7a10-7c3e-9b1d-5f0e2a6b7c8d"], 1, "not found").await;
    assert!(app.store.uploads().await.is_empty());

    refused(&app, &["session", "fail", &note.id, "--tenant", "acme", "--reason", "x"], 1, "CANCELLED").await;
    refused(&app, &["session", "show", &reel.id, "--tenant", "globex"], 1, "not found").await;
    refused(&app, &["session", "fail", &reel.id, "--tenant", "acme", "--reason", ""], 2, "must not be empty").await;
    refused(&app, &["session", "show", "x", "--tenant", "acme"], 2, "x").await;
    refused(&app, &["session", "list"], 2, "--tenant").await;
}

async fn an_operators_token_is_made(app: TestApp) {
    let token = said(&app, &["token", "--operator", "--user", "ola"]).await;
    let get = |path: &'static str| app.send(reqwest::Method::GET, path, |request| request.bearer_auth(&token));
    assert_eq!(get("/admin/tenants").await.ok()["data"].as_array().unwrap().len(), 2);
    get("/app/uploads").await.is_problem(403, "permission-denied");
    refused(&app, &["token"], 2, "--tenant").await;
    for name in ["system", "cli", "", "two\nlines"] {
        refused(&app, &["token", "--operator", "--user", name], 2, "the sub of the token").await;
    }
    refused(&app, &["token", "--operator", "--tenant", "acme"], 2, "--tenant").await;
}
