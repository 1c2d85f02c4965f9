//! Live events: in order, without a gap, to those who may hear of them and to nobody else.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use entity::TenantId;
use entity::upload_event::{self, Column};
use quaymaster::engine::Engine;
use quaymaster::keys::Keys;
use quaymaster::session;
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, Statement};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::kit::{AUDIT_KEY, Actor, MIB, Pair, TestApp, Upload, stories};
use crate::promote::promoted;
use crate::quota::{caller, new_upload};

stories![
    what_happens_is_told_as_it_happens,
    what_becomes_of_an_asset_is_told,
    a_reader_that_went_away_misses_nothing,
    readers_that_come_and_go_under_load_miss_nothing,
    nobody_hears_of_what_they_may_not_see,
    a_batch_can_be_followed_alone,
    another_process_is_heard,
    the_first_reader_hears_only_what_is_new,
    only_so_many_readers_are_taken,
    a_reader_that_does_not_read_gives_its_place_to_another,
    a_connection_that_takes_nothing_ends,
    an_idle_stream_gives_signs_of_life,
    a_stream_ends_with_its_token,
    a_stream_ends_with_the_server,
    an_outage_of_the_database_delays_events,
    what_is_asked_for_is_checked,
];

/// Longer than any event takes, and shorter than a test's patience.
const LONG: Duration = Duration::from_secs(15);

/// The place in the order of all events that an id stands for, which only the server can tell.
fn place_of(actor: &Actor, id: &str) -> i64 {
    Keys::new(AUDIT_KEY).place(TenantId(actor.tenant.id), id).unwrap_or_else(|| panic!("{id:?} is no id of theirs"))
}

/// The id of a place; 0 is what all events come after.
fn id_of(actor: &Actor, place: i64) -> String {
    if place == 0 { "0".to_owned() } else { Keys::new(AUDIT_KEY).event_id(TenantId(actor.tenant.id), place) }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The place that its id stands for.
    id: i64,
    name: String,
    data: Value,
}

/// An open stream.
pub struct Listener {
    actor: Actor,
    response: reqwest::Response,
    text: Vec<u8>,
    /// The id that the server sends first, for a reader that has seen no event yet.
    begins: i64,
    signs_of_life: u32,
}

impl Listener {
    async fn open(actor: &Actor, query: &str, last: Option<i64>) -> Self {
        Self::try_open(actor, query, last).await.expect("there is a place for one more reader")
    }

    /// `None` where there are too many readers.
    async fn try_open(actor: &Actor, query: &str, last: Option<i64>) -> Option<Self> {
        let mut request = actor.app.http.get(actor.app.url(&format!("/app/events{query}"))).bearer_auth(actor.token());
        if let Some(last) = last {
            request = request.header("Last-Event-ID", id_of(actor, last));
        }
        let response = request.send().await.unwrap();
        if response.status() == 503 {
            return None;
        }
        assert_eq!(response.status(), 200);
        let mut listener = Self { actor: actor.clone(), response, text: Vec::new(), begins: 0, signs_of_life: 0 };
        let first = listener.block().await.unwrap();
        let id = first.lines().find_map(|line| line.strip_prefix("id: "));
        listener.begins = place_of(actor, id.unwrap_or_else(|| panic!("no id in {first:?}")));
        Some(listener)
    }

    /// Up to the next empty line; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                return Some(String::from_utf8(block[..end].to_vec()).unwrap());
            }
            let chunk = tokio::time::timeout(LONG, self.response.chunk()).await.expect("something is sent in time");
            self.text.extend_from_slice(&chunk.unwrap()?);
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                self.signs_of_life += 1;
                continue;
            }
            let field = |name: &str| {
                let prefix = format!("{name}: ");
                block.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{block:?}"))
            };
            let data = serde_json::from_str(field("data")).unwrap();
            let id = place_of(&self.actor, field("id"));
            return Some(Event { id, name: field("event").to_owned(), data });
        }
    }

    pub async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("the stream goes on"));
        }
        events
    }
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

/// Opens a stream as soon as there is a place: of a reader that went away, the server hears a moment later.
pub async fn open_soon(ann: &Actor, last: Option<i64>) -> Listener {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(listener) = Listener::try_open(ann, "", last).await {
            return listener;
        }
        assert!(Instant::now() < deadline, "there is a place again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn completed(ann: &Actor) -> Upload {
    let note = ann.initiate("note.txt", 10).await;
    assert_eq!(ann.send(&note).await, 200);
    ann.complete(&note).await.created();
    note
}

async fn what_happens_is_told_as_it_happens(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    ann.initiate("before.txt", 1).await;
    let mut listener = loop {
        // Events of before may get their places only now.
        let listener = Listener::open(&ann, "", None).await;
        if listener.begins == 2 {
            break listener;
        }
    };
    let headers = listener.response.headers().clone();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");

    let body = json!({"file_name": "a", "file_size": 10, "batch_reference": "b", "client_reference": "row-1"});
    let note = Upload::new(ann.initiate_with(&body).await.created());
    let opened = listener.take(2).await;
    assert_eq!(names(&opened), ["upload.initiated", "upload.opened"]);
    assert_eq!(opened.iter().map(|event| event.id).collect::<Vec<_>>(), [3, 4]);
    let brand = app.tenant("acme").brand("main");
    let data = |status: &str, asset: Value, at: &Value| {
        json!({
            "upload_session_id": note.id, "brand_id": brand, "status": status, "asset_id": asset,
            "batch_reference": "b", "client_reference": "row-1", "at": at,
        })
    };
    assert_eq!(opened[0].data, data("INITIATING", Value::Null, &note.session["created_at"]));
    assert_eq!(opened[1].data["status"], "UPLOADING");

    assert_eq!(ann.send(&note).await, 200);
    let asset = ann.complete(&note).await.created();
    let done = listener.take(1).await.remove(0);
    assert_eq!((done.id, done.name.as_str()), (5, "upload.completed"));
    assert_eq!(done.data, data("COMPLETED", asset["asset_id"].clone(), &asset["created_at"]));

    let cancelled = ann.initiate("b", 6 * MIB).await;
    ann.cancel(&cancelled).await.ok();
    let failed = ann.initiate("c", 6 * MIB).await;
    app.store.abort(&failed.key(), failed.upload_id()).await;
    ann.complete(&failed).await.is_problem(409, "illegal-transition");
    let mut ends = Vec::new();
    for event in listener.take(6).await {
        if event.name != "upload.initiated" && event.name != "upload.opened" {
            ends.push((event.name, event.data["status"].clone(), event.data["asset_id"].clone()));
        }
    }
    assert_eq!(
        ends,
        [
            ("upload.cancelled".to_owned(), json!("CANCELLED"), Value::Null),
            ("upload.failed".to_owned(), json!("FAILED"), Value::Null),
        ]
    );
}

async fn what_becomes_of_an_asset_is_told(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut listener = Listener::open(&ann, "", None).await;
    for name in ["asset.ready", "asset.failed"] {
        let note = completed(&ann).await;
        listener.take(3).await;
        if name == "asset.failed" {
            assert_eq!(ann.send_to(&note.session, b"other byte".to_vec()).await, 200);
        }
        promoted(&app, &ann, &note).await.unwrap();
        let event = listener.take(1).await.remove(0);
        assert_eq!((event.name.as_str(), &event.data["status"]), (name, &json!("COMPLETED")));
        assert_eq!(event.data["asset_id"], ann.session(&note).await.ok()["asset_id"]);
    }
}

async fn a_reader_that_went_away_misses_nothing(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut listener = Listener::open(&ann, "", None).await;
    completed(&ann).await;
    let mut seen = listener.take(3).await;
    drop(listener);
    // Of the last one it says that it never arrived.
    seen.pop();
    completed(&ann).await;
    let mut again = Listener::open(&ann, "", Some(seen[1].id)).await;
    assert_eq!(again.begins, seen[1].id);
    let missed = again.take(4).await;
    assert_eq!(names(&missed), ["upload.completed", "upload.initiated", "upload.opened", "upload.completed"]);
    completed(&ann).await;
    again.take(3).await;

    // From the very beginning, without a header.
    let mut all = Listener::open(&ann, "?last_event_id=0", None).await;
    let all = all.take(9).await;
    assert_eq!(all[..2], seen);
    assert_eq!(all[2..6], missed);
    assert!(all.windows(2).all(|two| two[0].id < two[1].id));
    // A reader that has seen nothing yet resumes from where it began.
    let quiet = Listener::open(&ann, "", None).await;
    assert_eq!(quiet.begins, all[8].id);
    // A place that was never given is no reason to be silent for ever.
    let mut strange = Listener::open(&ann, "", Some(1_000_000)).await;
    completed(&ann).await;
    assert_eq!(strange.take(3).await[0].name, "upload.initiated");
}

async fn readers_that_come_and_go_under_load_miss_nothing(app: TestApp) {
    const UPLOADS: usize = 24;
    let ann = app.tenant("acme").user("ann");
    let working: Vec<_> = (0..3)
        .map(|_| {
            let ann = ann.clone();
            tokio::spawn(async move {
                for _ in 0..UPLOADS / 3 {
                    completed(&ann).await;
                }
            })
        })
        .collect();
    let mut seen: Vec<Event> = Vec::new();
    while seen.len() < UPLOADS * 3 {
        let last = seen.last().map_or(0, |event| event.id);
        let mut listener = Listener::open(&ann, "", Some(last)).await;
        let wanted = (UPLOADS * 3 - seen.len()).min(5);
        seen.extend(listener.take(wanted).await);
    }
    for task in working {
        task.await.unwrap();
    }
    let ids: Vec<i64> = seen.iter().map(|event| event.id).collect();
    let stored: Vec<i64> = upload_event::Entity::find()
        .filter(Column::Position.is_not_null())
        .order_by_asc(Column::Position)
        .all(&app.database.rows)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|event| event.position)
        .collect();
    assert_eq!(ids, stored);
}

async fn nobody_hears_of_what_they_may_not_see(app: TestApp) {
    let acme = app.tenant("acme");
    let view = ["uploads.create", "uploads.view", "uploads.cancel", "assets.create"];
    let ann = acme.user("ann").permissions(&view);
    let bob = acme.user("bob").permissions(&view);
    let boss = acme.user("boss").permissions(&["uploads.view", "uploads.manage", "uploads.create"]);
    let boss_of_other =
        acme.user("boss").brands(&["second"]).permissions(&["uploads.view", "uploads.manage", "uploads.create"]);
    let stranger = app.tenant("globex").user("ann");
    completed(&ann).await;

    // From the table first, then live: what is told of what ann does, until one's own comes.
    for (who, hears) in [(&ann, 6), (&bob, 0), (&boss, 6), (&boss_of_other, 0), (&stranger, 0)] {
        let mut listener = Listener::open(who, "?last_event_id=0", None).await;
        let mut anns = Listener::open(&ann, "", None).await;
        let before = completed(&ann).await;
        // Two sessions of one moment are in no order of their own: the next one begins when this one has its places.
        loop {
            let event = anns.next().await.unwrap();
            if event.name == "upload.completed" && event.data["upload_session_id"] == json!(before.id) {
                break;
            }
        }
        let own = who.initiate("own.txt", 1).await;
        let mut told = Vec::new();
        loop {
            let event = listener.next().await.unwrap();
            if event.data["upload_session_id"] == json!(own.id) {
                break;
            }
            told.push(event);
        }
        let of_ann = told.iter().filter(|event| event.data["upload_session_id"] == json!(before.id)).count();
        assert_eq!(of_ann, if hears > 0 { 3 } else { 0 }, "{:?}: {told:#?}", who.claims);
        if hears == 0 {
            assert!(told.is_empty(), "{:?}: {told:#?}", who.claims);
        }
    }
    let none = acme.user("ann").permissions(&["uploads.create"]);
    none.get("/app/events").await.is_problem(403, "permission-denied");
}

async fn a_batch_can_be_followed_alone(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut listener = Listener::open(&ann, "?batch_reference=b-2", None).await;
    for batch in ["b-1", "b-2", "b-22"] {
        ann.initiate_with(&json!({"file_name": "a", "file_size": 1, "batch_reference": batch})).await.created();
    }
    ann.initiate("none", 1).await;
    ann.initiate_with(&json!({"file_name": "z", "file_size": 1, "batch_reference": "b-2"})).await.created();
    let events = listener.take(4).await;
    assert!(events.iter().all(|event| event.data["batch_reference"] == "b-2"), "{events:#?}");
    let mut again = Listener::open(&ann, "?batch_reference=b-2&last_event_id=0", None).await;
    assert_eq!(again.take(4).await, events);
}

/// Nobody looks for events while such a story lasts, and a line is asked after only in a longer silence than [`LONG`]: what
/// is told in that time was said.
const NEVER: (&str, &str) = ("QUAYMASTER_FEED__POLL_MILLIS", "3600000");

/// Opens a session as `ann` would at that process, past its door.
async fn initiate_at(process: &Engine, ann: &Actor) {
    let new = new_upload(ann, "note.txt", 1);
    session::initiate(process, &caller(ann), new).await.unwrap_or_else(|error| panic!("{error}"));
}

/// The two events of a session that was opened before are told in time.
async fn opening_is_told(listener: &mut Listener) {
    let events = tokio::time::timeout(LONG, listener.take(2)).await.expect("it is told in time");
    assert_eq!(names(&events), ["upload.initiated", "upload.opened"]);
}

async fn another_process_is_heard(app: TestApp) {
    // On SQLite nobody can say anything: there it is the look that finds.
    if app.pair == Pair::Postgres {
        app.restart_with(&[NEVER]).await;
    }
    let ann = app.tenant("acme").user("ann");
    let other = app.another_engine().await;
    let mut listener = Listener::open(&ann, "", None).await;
    for _ in 0..3 {
        // As a command does: it commits, and that is all.
        initiate_at(&other, &ann).await;
        opening_is_told(&mut listener).await;

        // Does not say that it has committed, but gives the places and says that.
        let not_saying_so = other.db.follow();
        initiate_at(&other, &ann).await;
        quaymaster::feed::sequence(&other).await.unwrap();
        drop(not_saying_so);
        opening_is_told(&mut listener).await;
    }
    other.db.close().await.unwrap();
}

/// On SQLite there is one server.
mod a_server_that_nobody_listens_to_is_heard_at_the_others {
    #[test]
    fn postgres() {
        crate::kit::tell(crate::kit::Pair::Postgres, super::two_servers);
    }
}

async fn two_servers(app: TestApp) {
    app.restart_with(&[NEVER]).await;
    let ann = app.tenant("acme").user("ann");
    let other = app.another_server().await;
    let mut listener = Listener::open(&ann, "", None).await;
    for _ in 0..3 {
        initiate_at(&other.engine, &ann).await;
        opening_is_told(&mut listener).await;
    }
    // Many at once are told of as well, the last one too.
    for _ in 0..20 {
        initiate_at(&other.engine, &ann).await;
    }
    let many = tokio::time::timeout(LONG, listener.take(40)).await.expect("they are told in time");
    assert!(many.windows(2).all(|two| two[0].id + 1 == two[1].id), "{many:#?}");
    other.stop().await;
}

/// Only PostgreSQL is reached over lines.
mod a_line_that_breaks_is_mended_and_nothing_is_missed {
    #[test]
    fn postgres() {
        crate::kit::tell(crate::kit::Pair::Postgres, super::a_broken_line);
    }
}

async fn a_broken_line(app: TestApp) {
    app.restart_with(&[NEVER]).await;
    let ann = app.tenant("acme").user("ann");
    let other = app.another_engine_past_the_line().await;
    let mut listener = Listener::open(&ann, "", None).await;
    initiate_at(&other, &ann).await;
    opening_is_told(&mut listener).await;

    // PostgreSQL ends the one connection that listens, and the pool's go on.
    for _ in 0..3 {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        let ended = app.database.rows.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
        assert_eq!(ended.len(), 1, "one connection listens");
        initiate_at(&other, &ann).await;
        opening_is_told(&mut listener).await;
        initiate_at(&other, &ann).await;
        opening_is_told(&mut listener).await;
    }

    // All lines of this server break, and others go on.
    app.database.cut().await;
    initiate_at(&other, &ann).await;
    app.database.heal().await;
    opening_is_told(&mut listener).await;
    initiate_at(&other, &ann).await;
    opening_is_told(&mut listener).await;
    other.db.close().await.unwrap();
}

async fn the_first_reader_hears_only_what_is_new(app: TestApp) {
    // Nobody has looked since the start.
    app.restart_with(&[NEVER]).await;
    let ann = app.tenant("acme").user("ann");
    for _ in 0..3 {
        completed(&ann).await;
    }
    let mut listener = Listener::open(&ann, "", None).await;
    let new = completed(&ann).await;
    let told = listener.take(3).await;
    assert!(told.iter().all(|event| event.data["upload_session_id"] == json!(new.id)), "{told:#?}");
    assert!(listener.begins < told[0].id);
}

async fn only_so_many_readers_are_taken(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_FEED__READERS_MAX", "2")]).await;
    let ann = app.tenant("acme").user("ann");
    let mut one = Listener::open(&ann, "", None).await;
    let two = Listener::open(&ann, "?last_event_id=0", None).await;
    let note = ann.initiate("note.txt", 1).await;
    ann.get("/app/events").await.is_problem(503, "too-many-readers");
    // Who only waits has another place.
    ann.get(&format!("/app/uploads/{}/wait?timeout=0", note.id)).await.ok();
    drop(two);
    open_soon(&ann, None).await;
    // And the first one is still there.
    completed(&ann).await;
    one.take(5).await;
}

/// A client that opens a stream of events, reads how it begins, and then no more.
struct Stuck {
    actor: Actor,
    socket: TcpStream,
    read: Vec<u8>,
}

impl Stuck {
    /// Its receive buffer and its segments are small, so that what is sent to it soon waits at the server.
    async fn open(ann: &Actor) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        SockRef::from(&socket).set_tcp_mss(536).unwrap();
        let server = ann.app.url("").trim_start_matches("http://").parse().unwrap();
        let mut socket = socket.connect(server).await.unwrap();
        let request =
            format!("GET /app/events HTTP/1.1\r\nHost: {server}\r\nAuthorization: Bearer {}\r\n\r\n", ann.token());
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stuck = Self { actor: ann.clone(), socket, read: Vec::new() };
        while !stuck.text().contains("\nid: ") {
            assert!(stuck.reads().await.unwrap() > 0);
        }
        assert!(stuck.text().starts_with("HTTP/1.1 200 "), "{}", stuck.text());
        stuck
    }

    /// Its last character may not be whole yet.
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.read)
    }

    /// What is there to be read, after all; 0 at the end.
    async fn reads(&mut self) -> std::io::Result<usize> {
        let read = tokio::time::timeout(LONG, self.socket.read_buf(&mut self.read)).await;
        read.expect("there is something to read, or an end")
    }

    /// Of all events that it was sent, and has read.
    fn ids(&self) -> Vec<i64> {
        let text = self.text();
        let events = text.split("\n\n").filter(|block| block.contains("\nevent: "));
        let id =
            |block: &str| block.lines().find_map(|line| line.strip_prefix("id: ")).map(|id| place_of(&self.actor, id));
        events.filter_map(id).collect()
    }

    /// Whether the server still holds the other end of its connection: what the kernel says of it (proc(5)).
    fn is_connected(&self) -> bool {
        const ESTABLISHED: &str = "01";
        let end = |address: std::io::Result<SocketAddr>| format!(":{:04X}", address.unwrap().port());
        let (here, there) = (end(self.socket.local_addr()), end(self.socket.peer_addr()));
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .any(|fields| fields[1].ends_with(&there) && fields[2].ends_with(&here) && fields[3] == ESTABLISHED)
    }
}

/// Sessions are opened, with much in the two events of each; whoever reads is told of all.
async fn much_happens(ann: &Actor, reading: &mut Listener, sessions: usize) -> Vec<i64> {
    const AT_ONCE: usize = 10;
    // Characters of four bytes: how much the kernel takes for a reader that does not read, differs from machine to machine.
    let long = || format!("{}-{}", "\u{1F30A}".repeat(90), uuid::Uuid::new_v4());
    let file = |_| json!({"file_name": "a", "file_size": 1, "client_reference": long()});
    let mut ids = Vec::new();
    for _ in 0..sessions / AT_ONCE {
        let files: Vec<_> = (0..AT_ONCE).map(file).collect();
        ann.initiate_batch(&json!({"batch_reference": long(), "files": files})).await.created();
        ids.extend(reading.take(2 * AT_ONCE).await.iter().map(|event| event.id));
    }
    assert!(ids.windows(2).all(|two| two[0] + 1 == two[1]), "{ids:?}");
    ids
}

async fn a_reader_that_does_not_read_gives_its_place_to_another(app: TestApp) {
    app.restart_with(&[
        ("QUAYMASTER_FEED__READERS_MAX", "2"),
        ("QUAYMASTER_FEED__HEARTBEAT_SECS", "1"),
        ("QUAYMASTER_FEED__BUFFER", "50"),
        // Its connection stays for as long as this story lasts.
        ("QUAYMASTER_SERVER__WRITE_TIMEOUT_SECS", "3600"),
    ])
    .await;
    let ann = app.tenant("acme").user("ann");
    let mut reading = Listener::open(&ann, "", None).await;
    let mut stuck = Stuck::open(&ann).await;
    ann.get("/app/events").await.is_problem(503, "too-many-readers");
    let mut told = much_happens(&ann, &mut reading, 300).await;

    // The server has cut it off, and its connection is still there: nobody has told it.
    let mut another = Listener::try_open(&ann, "", None).await.expect("there is a place");
    assert!(stuck.is_connected());
    ann.get("/app/events").await.is_problem(503, "too-many-readers");
    told.extend(much_happens(&ann, &mut reading, 20).await);
    assert_eq!(another.take(40).await.iter().map(|event| event.id).collect::<Vec<_>>(), told[600..]);

    // What waited for it is what it finds now: the first events, without a gap, and not all of them. Then its stream ends.
    while !stuck.text().ends_with("\r\n0\r\n\r\n") {
        assert!(stuck.reads().await.unwrap() > 0);
    }
    let found = stuck.ids();
    assert_eq!(found, told[..found.len()]);
    assert!(found.len() < 450, "{} of {} events waited for it", found.len(), told.len());
    // It goes on from there once there is a place, and has missed nothing.
    drop(another);
    let mut again = open_soon(&ann, found.last().copied()).await;
    let rest = again.take(told.len() - found.len()).await;
    assert_eq!(rest.iter().map(|event| event.id).collect::<Vec<_>>(), told[found.len()..]);
}

async fn a_connection_that_takes_nothing_ends(app: TestApp) {
    app.restart_with(&[
        ("QUAYMASTER_FEED__BUFFER", "50"),
        ("QUAYMASTER_FEED__HEARTBEAT_SECS", "1"),
        ("QUAYMASTER_SERVER__WRITE_TIMEOUT_SECS", "2"),
    ])
    .await;
    let ann = app.tenant("acme").user("ann");
    let mut reading = Listener::open(&ann, "", None).await;
    let mut stuck = Stuck::open(&ann).await;
    much_happens(&ann, &mut reading, 100).await;
    let started = Instant::now();
    while stuck.is_connected() {
        assert!(started.elapsed() < LONG, "the connection is ended");
        much_happens(&ann, &mut reading, 10).await;
    }
    // It is no end of its stream, but of the connection: when it reads again it is told so by the kernel.
    let end = loop {
        match stuck.reads().await {
            Ok(0) => panic!("that looks like a good end"),
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(end, ErrorKind::ConnectionReset);
    assert!(!stuck.text().ends_with("\r\n0\r\n\r\n"));
    // Whoever reads what it is sent stays, however long.
    much_happens(&ann, &mut reading, 10).await;
}

async fn an_idle_stream_gives_signs_of_life(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_FEED__HEARTBEAT_SECS", "1")]).await;
    let ann = app.tenant("acme").user("ann");
    let started = Instant::now();
    let mut idle = Listener::open(&ann, "", None).await;
    for sign in 1..=4 {
        assert_eq!(idle.block().await.as_deref(), Some(":"));
        assert!(started.elapsed() >= Duration::from_secs(sign), "sign {sign} is early: {:?}", started.elapsed());
    }
    // As often as was set: by default there would be none yet. A busy machine may be late with some.
    assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
}

async fn a_stream_ends_with_its_token(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_FEED__HEARTBEAT_SECS", "1")]).await;
    let ann = app.tenant("acme").user("ann");
    let mut listener = Listener::open(&ann, "", None).await;
    completed(&ann).await;
    listener.take(3).await;
    app.advance(chrono::TimeDelta::hours(2));
    assert_eq!(listener.next().await, None);
    assert!(listener.signs_of_life <= 1, "signs of life only while the token is good");
}

async fn a_stream_ends_with_the_server(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let note = ann.initiate("note.txt", 1).await;
    let mut listener = Listener::open(&ann, "", None).await;
    let wait = || {
        let (ann, note) = (ann.clone(), note.clone());
        tokio::spawn(async move { ann.get(&format!("/app/uploads/{}/wait?timeout=60", note.id)).await })
    };
    // So many that an end that depends on luck shows.
    let waiting: Vec<_> = (0..64).map(|_| wait()).collect();
    // The waits have begun once it has been told of something.
    let mut behind = Listener::open(&ann, "?last_event_id=0", None).await;
    behind.take(2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = Instant::now();
    app.stop_server().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    while listener.next().await.is_some() {}
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().ok()["satisfied"], false);
    }
    app.start_server().await;
    // What happened is still to be had.
    assert_eq!(Listener::open(&ann, "?last_event_id=0", None).await.take(2).await.len(), 2);
}

async fn an_outage_of_the_database_delays_events(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let mut listener = Listener::open(&ann, "", None).await;
    completed(&ann).await;
    listener.take(3).await;
    app.database.cut().await;
    ann.initiate_with(&json!({"file_name": "a", "file_size": 1})).await.is_problem(503, "database-unavailable");
    app.database.heal().await;
    completed(&ann).await;
    assert_eq!(names(&listener.take(3).await), ["upload.initiated", "upload.opened", "upload.completed"]);
}

async fn what_is_asked_for_is_checked(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for (query, pointer, code) in [
        ("last_event_id=-1", "?last_event_id", "invalid-format"),
        ("last_event_id=", "?last_event_id", "invalid-format"),
        ("last_event_id=7", "?last_event_id", "invalid-format"),
        ("last_event_id=x", "?last_event_id", "invalid-format"),
        ("batch_reference=", "?batch_reference", "too-short"),
        ("since=1", "?since", "unknown-field"),
    ] {
        ann.get(&format!("/app/events?{query}")).await.is_invalid(&[(pointer, code)]);
    }
    for id in ["x", "-1", "7", "1.5", "99999999999999999999"] {
        let reply = app.send(reqwest::Method::GET, "/app/events", |request| {
            request.bearer_auth(ann.token()).header("Last-Event-ID", id)
        });
        reply.await.is_invalid(&[("Last-Event-ID", "invalid-format")]);
    }
    app.send(reqwest::Method::GET, "/app/events", |request| request).await.is_problem(401, "unauthenticated");
}
