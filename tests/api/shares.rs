//! What one caller may take of what all share: places of readers, errors in an answer, answers that nobody reads, and
//! connections that ask for nothing. Over sockets that do what no client library would.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::kit::{Actor, CHUNK, KIB, MIB, TestApp, Upload, stories};

stories![
    one_request_has_one_budget_of_errors,
    a_client_that_goes_gives_its_places_back,
    no_user_and_no_tenant_takes_all_places,
    what_writes_is_finished_for_a_client_that_has_gone,
    a_body_that_nobody_reads_ends_with_its_connection,
    a_body_that_has_come_leaves_the_connection_open,
    a_head_has_a_size_and_a_time,
    an_address_has_so_many_silent_connections,
    answers_that_nobody_reads_leave_room_for_others,
    bodies_that_do_not_end_leave_room_for_others,
    answers_in_parts_are_whole,
];

/// Longer than anything takes that is meant to end, and shorter than what must not last so long: a long poll.
const LONG: Duration = Duration::from_secs(20);

/// A connection of which a story says every byte.
pub struct Raw {
    socket: TcpStream,
    pub host: SocketAddr,
}

impl Raw {
    pub async fn open(app: &TestApp) -> Self {
        Self::with_buffer(app, None).await
    }

    /// With a receive buffer of a few KiB, so that what it does not read soon waits at the server.
    async fn with_buffer(app: &TestApp, bytes: Option<u32>) -> Self {
        let host = app.url("").trim_start_matches("http://").parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        Self { socket: socket.connect(host).await.unwrap(), host }
    }

    /// `false` where the server has closed.
    pub async fn send(&mut self, text: &str) -> bool {
        self.socket.write_all(text.as_bytes()).await.is_ok()
    }

    async fn get(&mut self, actor: &Actor, path: &str) {
        let (host, token) = (self.host, actor.token());
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n");
        assert!(self.send(&head).await);
    }

    async fn post(&mut self, actor: &Actor, path: &str, body: &Value) {
        let (host, token, body) = (self.host, actor.token(), body.to_string());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert!(self.send(&head).await);
    }

    /// What comes up to an answer's head, as text.
    async fn head(&mut self) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(LONG, self.socket.read_u8()).await.expect("there is an answer");
            read.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&read))));
        }
        String::from_utf8(read).unwrap()
    }

    /// All that comes, until the server closes.
    async fn rest(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        let end = tokio::time::timeout(LONG, self.socket.read_to_end(&mut read)).await;
        // However it is closed: bytes that it has not read make it a reset.
        drop(end.expect("the server closes"));
        read
    }
}

fn status(answer: &str) -> u16 {
    answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

async fn one_request_has_one_budget_of_errors(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let file = |n: usize| {
        let unknown = (0..100).map(|i| (format!("unknown-{n}-{i}"), json!(i)));
        let mut file: Value = unknown.collect::<serde_json::Map<_, _>>().into();
        file["file_name"] = json!(7);
        file
    };
    let files: Vec<Value> = (0..1_000).map(file).collect();
    let reply = ann.initiate_batch(&json!({"files": files})).await;
    let problem = reply.is_problem(422, "validation-failed");
    assert_eq!(problem["rejected"], 1_000);
    assert!(reply.body.len() < 2 * MIB as usize, "{} bytes", reply.body.len());
    let errors_of = |file: &Value| file["problem"]["errors"].as_array().unwrap().clone();
    let uploads = problem["uploads"].as_array().unwrap();
    // file_size is not there, either: 102 errors each, a thousand for all, and how many more for each.
    let mut named = 0;
    for (index, file) in uploads.iter().enumerate() {
        let errors = errors_of(file);
        let (last, named_here) = match errors.last() {
            Some(last) if last["code"] == "more-errors" => (Some(last), errors.len() - 1),
            _ => (None, errors.len()),
        };
        named += named_here;
        match index {
            0..=8 => assert!(named_here >= 101 && last.is_none(), "{index}: {errors:#?}"),
            9 => {}
            _ => {
                let last = last.unwrap_or_else(|| panic!("{index}: {errors:#?}"));
                assert_eq!((named_here, &last["pointer"]), (0, &json!(format!("/files/{index}"))));
                assert!(last["detail"].as_str().unwrap().starts_with("101 more errors"), "{last}");
            }
        }
    }
    assert_eq!(named, 1_000);

    // Alone, in a list, in a query: the same budget, and a last entry.
    let many = |count: usize| (0..count).map(|i| (format!("u{i}"), json!(i))).collect::<serde_json::Map<_, _>>();
    let mut alone = many(3_000);
    alone.extend([("file_name".to_owned(), json!("a")), ("file_size".to_owned(), json!(1))]);
    let alone = ann.initiate_with(&alone.into()).await;
    let reel = ann.initiate("reel.mov", 2 * CHUNK).await;
    let listed = ann.part_urls(&reel, &json!({"part_numbers": vec![99; 4_000]})).await;
    let query: String = (0..1_500).map(|_| "a=&").collect();
    let asked = ann.get(&format!("/app/uploads?{query}")).await;
    for (reply, more) in [(alone, 2_000), (listed, 3_000), (asked, 500)] {
        let errors = reply.is_problem(422, "validation-failed")["errors"].as_array().unwrap().clone();
        let last = errors.last().unwrap();
        assert_eq!((errors.len(), &last["code"]), (1_001, &json!("more-errors")), "{last}");
        assert!(last["detail"].as_str().unwrap().starts_with(&format!("{more} more")), "{last}");
    }

    // What a client wrote is repeated, but not all of it.
    let long = "x".repeat(50_000);
    let body =
        json!({"files": [{"file_name": "a", "file_size": 1, "client_reference": long, &long: 1, "brand_id": long}]});
    let reply = ann.initiate_batch(&body).await;
    reply.is_problem(422, "validation-failed");
    assert!(reply.body.len() < 4 * KIB as usize, "{} bytes", reply.body.len());
    // A body that would take much more memory than bytes.
    for hollow in ["{\"\":0},".repeat(110_000), "0,".repeat(600_000)] {
        let hollow = format!("{{\"files\":[{hollow}0]}}");
        let reply = app
            .send(reqwest::Method::POST, "/app/uploads/initiate-batch", |request| {
                request.bearer_auth(ann.token()).header("Content-Type", "application/json").body(hollow)
            })
            .await;
        reply.is_problem(400, "malformed-body");
    }
}

const FEW_READERS: [(&str, &str); 6] = [
    ("QUAYMASTER_FEED__READERS_MAX", "6"),
    ("QUAYMASTER_FEED__READERS_PER_TENANT_MAX", "4"),
    ("QUAYMASTER_FEED__READERS_PER_USER_MAX", "2"),
    ("QUAYMASTER_FEED__WAITS_MAX", "6"),
    ("QUAYMASTER_FEED__WAITS_PER_TENANT_MAX", "4"),
    ("QUAYMASTER_FEED__WAITS_PER_USER_MAX", "2"),
];

fn wait_path(upload: &Upload) -> String {
    format!("/app/uploads/{}/wait?timeout=60", upload.id)
}

/// Waits until all places of the user are taken, which a request on its way may not have done yet.
async fn full(actor: &Actor, path: &str) {
    let started = Instant::now();
    loop {
        let mut raw = Raw::open(&actor.app).await;
        raw.get(actor, path).await;
        // One that is let in is let go at once.
        if let Ok(head) = tokio::time::timeout(Duration::from_millis(200), raw.head()).await
            && status(&head) == 503
        {
            return;
        }
        assert!(started.elapsed() < LONG, "the places are taken");
    }
}

/// Waits until there is a place, and takes it.
async fn place_soon(actor: &Actor, path: &str) -> Raw {
    let started = Instant::now();
    loop {
        let mut raw = Raw::open(&actor.app).await;
        raw.get(actor, path).await;
        match tokio::time::timeout(Duration::from_millis(500), raw.head()).await {
            Ok(head) if status(&head) == 503 => {}
            Ok(_) | Err(_) => return raw,
        }
        assert!(started.elapsed() < LONG, "there is a place again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_client_that_goes_gives_its_places_back(app: TestApp) {
    app.restart_with(&FEW_READERS).await;
    // No sign of life is due while this story lasts: nothing else would tell the server of clients that have gone.
    app.restart_with(&[("QUAYMASTER_FEED__HEARTBEAT_SECS", "3600")]).await;
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 10).await;
    for path in [wait_path(&note), "/app/events".to_owned()] {
        let mut readers = Vec::new();
        for _ in 0..2 {
            let mut raw = Raw::open(&app).await;
            raw.get(&ann, &path).await;
            readers.push(raw);
        }
        full(&ann, &path).await;
        drop(readers);
        let started = Instant::now();
        let one = place_soon(&ann, &path).await;
        let two = place_soon(&ann, &path).await;
        assert!(started.elapsed() < LONG, "{path}: {:?}", started.elapsed());
        full(&ann, &path).await;
        drop((one, two));
    }
}

async fn no_user_and_no_tenant_takes_all_places(app: TestApp) {
    app.restart_with(&FEW_READERS).await;
    let (acme, globex) = (app.tenant("acme"), app.tenant("globex"));
    let (ann, bob, cid, gus) = (acme.user("ann"), acme.user("bob"), acme.user("cid"), globex.user("ann"));
    let mut taken = Vec::new();
    for who in [&ann, &bob] {
        let note = who.initiate("note.txt", 10).await;
        for path in ["/app/events".to_owned(), wait_path(&note)] {
            for _ in 0..2 {
                let mut raw = Raw::open(&app).await;
                raw.get(who, &path).await;
                taken.push(raw);
            }
            full(who, &path).await;
        }
    }
    // Nor for another user of the tenant, though there are places; and there are, for another tenant.
    let note = cid.initiate("note.txt", 10).await;
    cid.get("/app/events").await.is_problem(503, "too-many-readers");
    cid.get(&wait_path(&note)).await.is_problem(503, "too-many-readers");
    let note = gus.initiate("note.txt", 10).await;
    let mut raw = Raw::open(&app).await;
    raw.get(&gus, "/app/events").await;
    assert_eq!(status(&raw.head().await), 200);
    let answer = gus.get(&format!("/app/uploads/{}/wait?timeout=0", note.id)).await.ok();
    assert_eq!(answer["satisfied"], false);
}

async fn what_writes_is_finished_for_a_client_that_has_gone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let files: Vec<Value> = (0..1_000).map(|_| json!({"file_name": "a", "file_size": 1})).collect();
    let mut raw = Raw::open(&app).await;
    raw.post(&ann, "/app/uploads/initiate-batch", &json!({"batch_reference": "b", "files": files})).await;
    let started = Instant::now();
    let sessions = async || ann.batch("b").await.json()["sessions"].as_u64().unwrap_or(0);
    // A thousand transactions are not over in the moment that it takes to see the first.
    while sessions().await == 0 {
        assert!(started.elapsed() < LONG, "the batch has begun");
    }
    drop(raw);
    while sessions().await < 1_000 {
        assert!(started.elapsed() < LONG * 3, "{} of 1000 files have a session", sessions().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn a_body_that_nobody_reads_ends_with_its_connection(app: TestApp) {
    // Nothing but the time for a body ends it: what trickles on after an answer is no head, either.
    app.restart_with(&[
        ("QUAYMASTER_SERVER__BODY_TIMEOUT_SECS", "5"),
        ("QUAYMASTER_SERVER__HEAD_TIMEOUT_SECS", "3600"),
    ])
    .await;
    let ann = app.tenant("acme").user("ann");
    let token = format!("Authorization: Bearer {}\r\n", ann.token());
    let typed = "Content-Type: application/json\r\n";
    let text = "Content-Type: text/plain\r\n";
    for (line, headers, expected) in [
        ("POST /app/uploads/initiate", typed.to_owned(), 401),
        ("POST /app/nothing", String::new(), 404),
        ("GET /healthz", String::new(), 200),
        ("GET /app/brands", token.clone(), 200),
        ("DELETE /app/brands", token.clone(), 405),
        ("POST /app/uploads/initiate", format!("{token}{text}"), 415),
        // What is read of it is too much, or comes too slowly.
        ("POST /app/uploads/initiate", format!("{token}{typed}"), 413),
        ("POST /app/uploads/initiate", format!("{token}{typed}"), 408),
    ] {
        let mut raw = Raw::open(&app).await;
        let host = raw.host;
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n{headers}\r\n");
        assert!(raw.send(&head).await);
        if expected == 413 {
            let chunk = "x".repeat(0x1000);
            for _ in 0..17 {
                raw.send(&format!("1000\r\n{chunk}\r\n")).await;
            }
        }
        let started = Instant::now();
        let mut answer = Vec::new();
        // It trickles for ever: a byte now and then, until the server has enough of it.
        loop {
            let goes_on = raw.send("1\r\n{\r\n").await;
            let read = tokio::time::timeout(Duration::from_millis(100), raw.socket.read_buf(&mut answer)).await;
            if !goes_on || matches!(read, Ok(Ok(0) | Err(_))) {
                break;
            }
            assert!(started.elapsed() < LONG, "{line} {expected}: the connection lives on");
        }
        assert_eq!(status(&String::from_utf8_lossy(&answer)), expected, "{line}");
    }
}

async fn a_body_that_has_come_leaves_the_connection_open(app: TestApp) {
    let mut raw = Raw::open(&app).await;
    let host = raw.host;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        assert!(raw.send(&format!("{head}3\r\nabc\r\n0\r\n\r\n")).await);
        assert_eq!(status(&raw.head().await), 200);
        let mut body = [0; 15];
        raw.socket.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, br#"{"status":"ok"}"#);
    }
}

async fn a_head_has_a_size_and_a_time(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_SERVER__HEAD_TIMEOUT_SECS", "2")]).await;
    let first = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    // The first head of a connection, or a later one: what is too large is told so, and what stops halfway is let go.
    for before in ["", first] {
        for (half, expected) in [(format!("X: {}", "x".repeat(40_000)), 431), ("X: x".to_owned(), 408)] {
            let mut raw = Raw::open(&app).await;
            if !before.is_empty() {
                assert!(raw.send(before).await);
                assert_eq!(status(&raw.head().await), 200);
                let mut body = [0; 15];
                raw.socket.read_exact(&mut body).await.unwrap();
            }
            // The server may have had enough before all of it is sent.
            raw.send(&format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{half}")).await;
            let answer = raw.rest().await;
            assert_eq!(status(&String::from_utf8_lossy(&answer)), expected, "after {before:?}");
        }
    }
    // A head may have 16 KiB, and a body may come with it that is larger than that.
    let mut raw = Raw::open(&app).await;
    assert!(raw.send(&format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(15_000))).await);
    assert_eq!(status(&raw.head().await), 200);
    let ann = app.tenant("acme").user("ann");
    let mut raw = Raw::open(&app).await;
    raw.post(&ann, "/app/uploads/initiate", &json!({"file_name": "x".repeat(60_000), "file_size": 1})).await;
    assert_eq!(status(&raw.head().await), 422);
    // Behind a request that waits, more than a head may have; the next is answered after it.
    let note = ann.initiate("note.txt", 10).await;
    let mut raw = Raw::open(&app).await;
    raw.get(&ann, &format!("/app/uploads/{}/wait?timeout=1", note.id)).await;
    let mut behind = String::new();
    for _ in 0..4 {
        behind.push_str(&format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(10_000)));
    }
    behind.push_str("GET /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(raw.send(&behind).await);
    let answers = String::from_utf8(raw.rest().await).unwrap();
    assert_eq!(answers.matches(r#"{"status":"ok"}"#).count(), 4, "{answers}");
    assert!(answers.contains("HTTP/1.1 404"), "{answers}");
}

async fn an_address_has_so_many_silent_connections(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_SERVER__SILENT_CONNECTIONS_PER_ADDRESS_MAX", "8")]).await;
    let head = "GET /healthz HTTP/1.1\r\nHost: h\r\n";
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::open(&app).await;
        assert!(raw.send(head).await);
        silent.push(raw);
    }
    let mut ninth = Raw::open(&app).await;
    assert!(ninth.rest().await.is_empty(), "it is closed without a word");
    // Whoever has asked for something is silent no more, and may keep the connection.
    let mut asked = silent.pop().unwrap();
    assert!(asked.send("\r\n").await);
    assert_eq!(status(&asked.head().await), 200);
    let mut another = Raw::open(&app).await;
    assert!(another.send(&format!("{head}\r\n")).await);
    assert_eq!(status(&another.head().await), 200);

    // Nor do so many that have asked keep theirs: an answer to one more is its last.
    let mut kept = vec![asked, another];
    for number in 3..=10 {
        let mut raw = Raw::open(&app).await;
        assert!(raw.send(&format!("{head}\r\n")).await);
        let answer = raw.head().await;
        assert_eq!((status(&answer), answer.contains("connection: close")), (200, number > 8), "{number}: {answer}");
        kept.push(raw);
    }
    drop(kept.pop().unwrap().rest().await);
    let mut first = kept.swap_remove(0);
    assert!(first.send(&format!("{head}\r\n")).await);
    assert!(!first.head().await.contains("connection: close"), "a place that is used again is its own");

    // A proxy in front may have any number.
    drop((silent, kept, first));
    app.restart_with(&[("QUAYMASTER_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::open(&app).await;
        assert!(raw.send(head).await);
        silent.push(raw);
    }
    for raw in &mut silent {
        assert!(raw.send("\r\n").await);
        assert_eq!(status(&raw.head().await), 200);
    }
}

async fn answers_that_nobody_reads_leave_room_for_others(app: TestApp) {
    app.restart_with(&[
        ("QUAYMASTER_SERVER__ANSWERS_MAX_BYTES", "3145728"),
        ("QUAYMASTER_SERVER__ANSWERS_PER_TENANT_MAX_BYTES", "1048576"),
        // The clients that read nothing stay for as long as this story lasts.
        ("QUAYMASTER_SERVER__WRITE_TIMEOUT_SECS", "3600"),
    ])
    .await;
    let ann = app.tenant("acme").user("ann");
    let huge = |who: Actor| async move {
        let body = json!({"file_name": "huge.bin", "file_size": 10_000 * CHUNK});
        Upload::without_bytes(who.initiate_with(&body).await.created())
    };
    let reel = huge(ann.clone()).await;
    let all = json!({"from": 1, "to": 10_000});
    let path = format!("/app/uploads/{}/multipart-part-urls", reel.id);
    let mut unread = Vec::new();
    // Eight such streams are a share of 1 MiB.
    for _ in 0..8 {
        let mut raw = Raw::with_buffer(&app, Some(4096)).await;
        raw.post(&ann, &path, &all).await;
        assert_eq!(status(&raw.head().await), 200);
        unread.push(raw);
    }
    let started = Instant::now();
    let refused = ann.part_urls(&reel, &all).await;
    refused.is_problem(429, "rate-limited");
    assert!(started.elapsed() >= Duration::from_secs(2), "it has waited for room: {:?}", started.elapsed());
    ann.resume(&reel).await.is_problem(429, "rate-limited");
    // What is small needs no room.
    ann.part_url(&reel, 1).await.ok();
    ann.part_urls(&reel, &json!({"from": 1, "to": 16})).await.ok();

    // Another tenant has a share of its own.
    let gus = app.tenant("globex").user("gus");
    let other = huge(gus.clone()).await;
    assert_eq!(gus.part_urls(&other, &all).await.ok()["parts"].as_array().unwrap().len(), 10_000);
    gus.resume(&other).await.ok();
    // And who goes, or reads, makes room.
    let waiting = tokio::spawn({
        let (ann, reel, all) = (ann.clone(), reel.clone(), all.clone());
        async move { ann.part_urls(&reel, &all).await.ok()["parts"].as_array().unwrap().len() }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(unread.pop());
    assert_eq!(waiting.await.unwrap(), 10_000);
    ann.cancel(&reel).await.ok();
    gus.cancel(&other).await.ok();
}

async fn bodies_that_do_not_end_leave_room_for_others(app: TestApp) {
    app.restart_with(&[
        ("QUAYMASTER_SERVER__BODIES_MAX_BYTES", "3145728"),
        ("QUAYMASTER_SERVER__BODIES_PER_TENANT_MAX_BYTES", "1048576"),
        ("QUAYMASTER_SERVER__BODY_TIMEOUT_SECS", "3600"),
    ])
    .await;
    let (ann, gus) = (app.tenant("acme").user("ann"), app.tenant("globex").user("gus"));
    // It needs no permission to send one.
    let nobody = ann.clone().with("permissions", json!([]));
    let mut endless = Vec::new();
    for framing in ["Content-Length: 524288", "Content-Length: 262144", "Transfer-Encoding: chunked"] {
        let mut raw = Raw::open(&app).await;
        let (host, token) = (raw.host, nobody.token());
        // A chunked one may become as large as any.
        let path = if framing.contains("chunked") { "initiate" } else { "initiate-batch" };
        let head = format!(
            "POST /app/uploads/{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{framing}\r\n\r\n"
        );
        assert!(raw.send(&head).await);
        endless.push(raw);
    }
    let files: Vec<Value> = (0..1_000).map(|_| json!({"file_name": "a".repeat(200), "file_size": 1})).collect();
    let batch = json!({"batch_reference": "b", "files": files});
    assert!((200_000..262_144).contains(&batch.to_string().len()));
    let started = Instant::now();
    ann.initiate_batch(&batch).await.is_problem(429, "rate-limited");
    assert!(started.elapsed() >= Duration::from_secs(2), "it has waited for room: {:?}", started.elapsed());
    // What is small needs no room, and another tenant has a share of its own.
    ann.initiate("note.txt", 1).await;
    gus.initiate_batch(&batch).await.created();
    // Who goes makes room.
    drop(endless.pop());
    let started = Instant::now();
    while ann.initiate_batch(&batch).await.status == 429 {
        assert!(started.elapsed() < LONG, "there is room again");
    }
}

async fn answers_in_parts_are_whole(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let reel = Upload::without_bytes(
        ann.initiate_with(&json!({"file_name": "huge.bin", "file_size": 10_000 * CHUNK})).await.created(),
    );
    let one = ann.part_url(&reel, 1).await.ok();
    for which in [json!({"from": 1, "to": 1}), json!({"part_numbers": [1]}), json!({"from": 1, "to": 10_000})] {
        let urls = ann.part_urls(&reel, &which).await;
        assert_eq!(urls.header("content-type"), "application/json");
        let urls = urls.ok();
        let keys: Vec<_> = urls.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["expires_at", "multipart_upload_id", "parts"]);
        for (index, part) in urls["parts"].as_array().unwrap().iter().enumerate() {
            assert_eq!(part["part_number"], index + 1);
            assert_eq!((&part["offset"], &part["size"]), (&json!(index as u64 * CHUNK), &json!(CHUNK)));
            assert_eq!(part.as_object().unwrap().len() + 1, one.as_object().unwrap().len());
        }
    }
    // HTTP/1.0 knows no chunks: the answer ends with its connection.
    let (token, body) = (ann.token(), json!({"from": 1, "to": 100}).to_string());
    let mut raw = Raw::open(&app).await;
    let head = format!(
        "POST /app/uploads/{}/multipart-part-urls HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{body}",
        reel.id,
        body.len()
    );
    assert!(raw.send(&head).await);
    let head = raw.head().await.to_ascii_lowercase();
    assert!(!head.contains("transfer-encoding"), "{head}");
    let answer: Value = serde_json::from_slice(&raw.rest().await).unwrap();
    assert_eq!(answer["parts"].as_array().unwrap().len(), 100);
    ann.cancel(&reel).await.ok();
}
