//! The disk under the embedded default fills up, fails or becomes read-only, at every place where it is asked for
//! something. What was answered 2xx is there, also after a kill; what was refused is not half there; and once the disk is
//! well, so is the server.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::{Value, json};

use crate::kit::{Actor, CHUNK, Calls, Disk, Errno, MIB, Pair, Reply, TestApp, Upload, tell};
use crate::program::Embedded;

/// The write-ahead log of the server's database: all that is committed goes there first.
const LOG: &str = "quaymaster.db-wal";

const FAULTS: [(Calls, Errno); 4] = [
    (Calls::Writes, Errno::NoSpace),
    (Calls::Writes, Errno::Io),
    (Calls::Writes, Errno::ReadOnly),
    (Calls::Syncs, Errno::Io),
];

#[test]
fn nothing_answered_is_lost_to_a_disk_that_fails() {
    tell(Pair::Embedded, nothing_is_lost);
}

/// What a request does while the disk fails.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Initiate,
    Open,
    Activity,
    Complete,
    Cancel,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Initiate, Self::Open, Self::Activity, Self::Complete, Self::Cancel];

    /// What it needs, while the disk is well.
    async fn subject(self, ann: &Actor) -> Option<Upload> {
        match self {
            Self::Initiate | Self::Open => None,
            Self::Activity | Self::Cancel => Some(ann.initiate("a", 5).await),
            Self::Complete => {
                let upload = ann.initiate("a", 5).await;
                assert_eq!(ann.send(&upload).await, 200);
                Some(upload)
            }
        }
    }

    async fn call(self, ann: &Actor, subject: Option<&Upload>) -> Reply {
        match (self, subject) {
            (Self::Initiate, _) => ann.initiate_with(&json!({"file_name": "a", "file_size": 5})).await,
            (Self::Open, _) => ann.initiate_with(&json!({"file_name": "a", "file_size": 6 * MIB})).await,
            (Self::Activity, Some(upload)) => ann.activity(upload).await,
            (Self::Complete, Some(upload)) => ann.complete(upload).await,
            (Self::Cancel, Some(upload)) => ann.cancel(upload).await,
            (Self::Activity | Self::Complete | Self::Cancel, None) => unreachable!("each has a subject"),
        }
    }
}

async fn nothing_is_lost(app: TestApp) {
    // A cancel whose cleanup cannot be recorded leaves it to the next pass.
    app.expect_leftovers();
    let disk = Disk::new(app.folder.path());
    for (name, value) in disk.env() {
        app.set(name, &value);
    }
    app.operator("ola").patch("/admin/tenants/globex", &json!({"suspended": true})).await.ok();
    app.run_the_program().await;
    let (ann, eve) = (app.tenant("acme").user("ann"), app.tenant("globex").user("eve"));

    let mut answered = Vec::new();
    for (calls, errno) in FAULTS {
        for verb in Verb::ALL {
            for pass in 0.. {
                let at = format!("{verb:?} with {calls:?} {errno:?} after {pass}");
                let subject = verb.subject(&ann).await;
                disk.fail(LOG, calls, errno, pass, 1);
                let reply = verb.call(&ann, subject.as_ref()).await;
                let was_hit = disk.seen() > i64::from(pass);
                disk.heal();
                match reply.status {
                    200 | 201 => answered.push((at.clone(), reply.json())),
                    _ => drop(reply.is_problem(503, "database-unavailable")),
                }
                // An ordinary roll-back comes over what the failure has left of the connection.
                eve.initiate_with(&json!({"file_name": "b", "file_size": 1})).await.is_problem(409, "tenant-suspended");
                let after = ann.initiate("after", 1).await;
                assert!(is_there(&app, &after.id).await, "{at}: answered 201, and nobody else sees it");
                answered.push((at, after.session));
                if !was_hit {
                    break;
                }
                assert!(pass < 100, "the verb asks the disk for ever");
            }
        }
    }

    app.kill_server().await;
    app.start_server().await;
    for (at, answer) in answered {
        let id = answer["upload_session_id"].as_str().unwrap();
        assert!(is_there(&app, id).await, "{at}: {answer} was answered, and is lost");
        let session = ann.get(&format!("/app/uploads/{id}")).await.ok();
        // Only ever further.
        match answer["status"].as_str().unwrap() {
            "UPLOADED" => assert_eq!(session["status"], "COMPLETED", "{at}"),
            "CANCELLED" => assert_eq!(session["status"], "CANCELLED", "{at}"),
            _ => {}
        }
    }
}

/// Whether another process finds the session.
async fn is_there(app: &TestApp, id: &str) -> bool {
    let sql =
        format!("SELECT 1 FROM upload_session WHERE lower(hex(id)) = '{0}' OR id = '{1}'", id.replace('-', ""), id);
    let found = app.database.rows.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await;
    found.unwrap().is_some()
}

#[test]
fn a_server_on_a_failing_disk_says_so_and_serves_reads() {
    tell(Pair::Embedded, a_failing_disk_is_told);
}

async fn a_failing_disk_is_told(app: TestApp) {
    let disk = Disk::new(app.folder.path());
    for (name, value) in disk.env() {
        app.set(name, &value);
    }
    app.run_the_program().await;
    let ann = app.tenant("acme").user("ann");
    let before = ann.initiate("before", 1).await;
    assert_eq!(app.readiness(200).await["database"], "ok");
    for (calls, errno) in FAULTS {
        disk.fail(LOG, calls, errno, 0, u32::MAX);
        assert_eq!(app.readiness(503).await["database"], "unavailable", "{calls:?} {errno:?}");
        app.send(reqwest::Method::GET, "/healthz", |request| request).await.ok();
        ann.initiate_with(&json!({"file_name": "a", "file_size": 1})).await.is_problem(503, "database-unavailable");
        ann.session(&before).await.ok();
        disk.heal();
        assert_eq!(app.readiness(200).await["database"], "ok");
        ann.initiate("after", 1).await;
    }
}

/// A PUT of these bytes to a new session, and what the store answers to it.
async fn put(embedded: &Embedded, token: &str, bytes: &[u8]) -> (Value, u16) {
    let body = json!({"file_name": "a", "file_size": bytes.len()});
    let (status, session) = embedded.post(token, "/app/uploads/initiate", &body).await;
    assert_eq!(status, 201, "{session}");
    let mut request = embedded.http.put(session["upload_url"].as_str().unwrap()).body(bytes.to_vec());
    for (name, value) in session["upload_headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    let status = request.send().await.unwrap().status().as_u16();
    (session, status)
}

#[tokio::test]
async fn the_embedded_store_is_well_once_its_disk_is() {
    let embedded = Embedded::new();
    embedded.said(&["tenant", "create", "acme"]).await;
    let token = embedded.said(&["token", "--tenant", "acme"]).await;
    let disk = Disk::new(embedded.folder.path());
    let mut server = embedded.serve_with(&disk.env()).await;

    let bytes = vec![7; 100_000];
    let mut kept = Vec::new();
    for (place, status_if_full) in [("/store/metadata.db-wal", 507), ("/store/blobs/", 507)] {
        for (calls, errno) in FAULTS {
            for pass in 0.. {
                let at = format!("{place} {calls:?} {errno:?} after {pass}");
                disk.fail(place, calls, errno, pass, 1);
                let (session, status) = put(&embedded, &token, &bytes).await;
                let was_hit = disk.seen() > i64::from(pass);
                disk.heal();
                match (status, errno) {
                    (200, _) => kept.push((at.clone(), session)),
                    (status, Errno::NoSpace) => assert_eq!(status, status_if_full, "{at}"),
                    (status, Errno::Io | Errno::ReadOnly) => assert_eq!(status, 503, "{at}"),
                }
                // Without a restart.
                let (session, status) = put(&embedded, &token, &bytes).await;
                assert_eq!(status, 200, "after {at}");
                kept.push((at, session));
                let large = json!({"file_name": "b", "file_size": 2 * CHUNK});
                let (status, opened) = embedded.post(&token, "/app/uploads/initiate", &large).await;
                assert_eq!(status, 201, "{opened}");
                if !was_hit {
                    break;
                }
                assert!(pass < 100, "a PUT asks the disk for ever");
            }
        }
    }
    no_blob_is_left_over(&embedded).await;
    server.kill().await.unwrap();
    server = embedded.serve().await;
    for (at, session) in kept {
        let body = json!({"upload_session_id": session["upload_session_id"]});
        let (status, asset) = embedded.post(&token, "/app/assets/upload/complete", &body).await;
        assert_eq!(status, 201, "{at}: {asset}");
    }
    server.kill().await.unwrap();
}

/// A small file system of its own, which can be filled; only root may mount one.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self { at })
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::options().append(true).create(true).open(self.at.join("filler")).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while file.write(&vec![1; size]).is_ok_and(|written| written > 0) {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.at.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.at).status();
        let is_gone = unmounted.is_ok_and(|status| status.success());
        assert!(is_gone || std::thread::panicking(), "{} stays mounted", self.at.display());
    }
}

#[tokio::test]
async fn a_server_starts_on_a_full_disk_and_serves_reads() {
    let embedded = Embedded::new();
    let Some(disk) = SmallDisk::mount(embedded.folder.path().join("data")) else {
        #[allow(clippy::print_stderr, reason = "cargo test shows it beside the test's name")]
        return eprintln!("skipped: only root mounts a file system");
    };
    embedded.said(&["tenant", "create", "acme"]).await;
    let token = embedded.said(&["token", "--tenant", "acme"]).await;
    let mut server = embedded.serve().await;
    let (session, status) = put(&embedded, &token, b"hello").await;
    assert_eq!(status, 200);
    let complete = json!({"upload_session_id": session["upload_session_id"]});
    let (status, asset) = embedded.post(&token, "/app/assets/upload/complete", &complete).await;
    assert_eq!(status, 201, "{asset}");
    // In good order: nothing of the databases' logs is left that a start could lean on.
    let pid = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.wait().await.unwrap().success());

    disk.fill();
    let mut server = embedded.serve_until("/healthz", &[]).await;
    disk.fill(); // what the start has given back of its reserve
    let path = format!("/app/uploads/{}", session["upload_session_id"].as_str().unwrap());
    let (status, found) = embedded.get(&token, &path).await;
    assert_eq!((status, &found["status"]), (200, &json!("COMPLETED")), "{found}");
    let body = json!({"file_name": "a", "file_size": 1});
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ready = embedded.http.get(embedded.url("/readyz")).send().await.unwrap();
        let status = ready.status();
        let said: Value = ready.json().await.unwrap();
        if status == 503 {
            assert!(said["database"] == "unavailable" || said["store"] == "unavailable", "{said}");
            break;
        }
        // A few pages were left in the logs: they fill up.
        assert!(Instant::now() < deadline, "{said}");
        embedded.post(&token, "/app/uploads/initiate", &body).await;
        disk.fill();
    }

    disk.empty();
    let deadline = Instant::now() + Duration::from_secs(30);
    while embedded.http.get(embedded.url("/readyz")).send().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline, "it does not get well");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, status) = put(&embedded, &token, b"hello").await;
    assert_eq!(status, 200);
    server.kill().await.unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_found_by_operators() {
    let embedded = Embedded::new();
    embedded.said(&["tenant", "create", "acme"]).await;
    let token = embedded.said(&["token", "--tenant", "acme"]).await;
    let ola = embedded.said(&["token", "--operator"]).await;
    let mut server = embedded.serve().await;
    let body = json!({"file_name": "a", "file_size": 1});
    let (_, session) = embedded.post(&token, "/app/uploads/initiate", &body).await;
    let (status, findings) = embedded.get(&ola, "/admin/findings").await;
    assert_eq!((status, &findings["damage"]), (200, &Value::Null));
    server.kill().await.unwrap();

    let file = embedded.folder.path().join("data/quaymaster.db");
    let rows = sea_orm::Database::connect(format!("sqlite://{}", file.display())).await.unwrap();
    rows.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    let sql = "SELECT rootpage, (SELECT page_size FROM pragma_page_size) AS size
               FROM sqlite_schema WHERE name = 'upload_event'";
    let row = rows.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap().unwrap();
    let (page, size): (i64, i64) = (row.try_get("", "rootpage").unwrap(), row.try_get("", "size").unwrap());
    rows.close().await.unwrap();
    let at = u64::try_from((page - 1) * size).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().write_all_at(&[0xff; 512], at).unwrap();

    let mut server = embedded.serve_until("/healthz", &[]).await;
    let path = format!("/app/uploads/{}/events", session["upload_session_id"].as_str().unwrap());
    let (status, problem) = embedded.get(&token, &path).await;
    assert_eq!((status, &problem["code"]), (500, &json!("internal")), "{problem}");
    let (status, findings) = embedded.get(&ola, "/admin/findings").await;
    assert_eq!(status, 200, "{findings}");
    assert!(findings["damage"]["cause"].as_str().unwrap().contains("malformed"), "{findings}");
    // What lies elsewhere in the file is still served.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(embedded.http.get(embedded.url("/readyz")).send().await.unwrap().status(), 200);
    server.kill().await.unwrap();
}

/// A commit that failed leaves no bytes behind: the disk was full enough.
async fn no_blob_is_left_over(embedded: &Embedded) {
    let store = embedded.folder.path().join("data/store");
    let url = format!("sqlite://{}?mode=ro", store.join("metadata.db").display());
    let rows = sea_orm::Database::connect(url).await.unwrap();
    let sql = "SELECT count(*) AS n FROM (SELECT blob FROM object_segment UNION SELECT blob FROM part_segment)";
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let row = rows.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap().unwrap();
        let named: i64 = row.try_get("", "n").unwrap();
        let mut files = 0;
        for shard in std::fs::read_dir(store.join("blobs")).unwrap() {
            files += i64::try_from(std::fs::read_dir(shard.unwrap().path()).unwrap().count()).unwrap();
        }
        if files == named {
            break;
        }
        assert!(Instant::now() < deadline, "{files} blobs on the disk, {named} of them named");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rows.close().await.unwrap();
}
