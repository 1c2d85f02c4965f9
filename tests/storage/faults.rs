//! A store that fails on purpose: what each failure is called, how often a call is made, and how long it may take.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quaymaster::settings::{self, Provider};
use quaymaster::storage::{Error, ErrorKind, Location, Op, Part, Source, Storage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::kit;

const SECRET: &str = "not-for-any-log";

/// What the store does with a request.
#[derive(Clone)]
pub enum Does {
    /// Answers with this status and body.
    Say(u16, String),
    /// The same with more lines in the head, each with its line break.
    SayWith(u16, String, String),
    /// Answers with the first half of a 200, and hangs up.
    BreakOff,
    /// Answers with the first half of a 200, and nothing more.
    Stall,
    /// Hangs up without an answer.
    HangUp,
    /// Never answers.
    Hang,
}

/// An error as S3 writes it.
fn error(status: u16, code: &str) -> Does {
    Does::Say(status, format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>"))
}

/// A store on a port of its own, which ends when this is dropped.
pub struct Faulty {
    pub address: SocketAddr,
    /// The first line of each request.
    requests: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Faulty {
    /// `plan` says what to do with the request of this number, counted from 0, and this first line.
    pub async fn start(plan: impl Fn(usize, &str) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, plan) = (requests.clone(), Arc::new(plan));
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, plan) = (seen.clone(), plan.clone());
                tokio::spawn(async move {
                    // A client that has given up is no matter.
                    let _ = serve(stream, &seen, &*plan).await;
                });
            }
        });
        Self { address, requests, accepting }
    }

    async fn always(does: Does) -> Self {
        Self::start(move |_, _| does.clone()).await
    }

    /// A client that gives up after a second.
    pub async fn storage(&self) -> Storage {
        Storage::connect(&settings(&format!("http://{}", self.address))).await.unwrap()
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    plan: &(dyn Fn(usize, &str) -> Does + Send + Sync),
) -> std::io::Result<()> {
    let line = read_request(&mut stream).await?;
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(line.clone());
        seen.len() - 1
    };
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n<?xml version=\"1.0\"?>";
    match plan(number, &line) {
        Does::Say(status, body) => say(&mut stream, &line, status, "", &body).await?,
        Does::SayWith(status, head, body) => say(&mut stream, &line, status, &head, &body).await?,
        Does::BreakOff => stream.write_all(HALF).await?,
        Does::Stall => {
            stream.write_all(HALF).await?;
            std::future::pending().await
        }
        Does::HangUp => {}
        Does::Hang => std::future::pending().await,
    }
    stream.shutdown().await
}

async fn say(stream: &mut TcpStream, line: &str, status: u16, more: &str, body: &str) -> std::io::Result<()> {
    let body = if line.starts_with("HEAD") { "" } else { body };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Because\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

/// Reads a request with its body, and gives back its first line.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut read = Vec::new();
    let head_ends = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8(read[..head_ends].to_vec()).unwrap();
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    let body: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while read.len() < head_ends + body {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head.lines().next().unwrap().to_owned())
}

fn settings(endpoint: &str) -> settings::Storage {
    settings::Storage {
        bucket: Some("bucket".to_owned()),
        connect_timeout_secs: 1,
        read_timeout_secs: 1,
        attempt_timeout_secs: 1,
        ..kit::settings(Provider::Ceph, endpoint, "ID-FOR-NO-LOG", SECRET)
    }
}

fn at() -> Location {
    Location { bucket: "bucket".to_owned(), key: "temp/uploads/x/original".to_owned() }
}

/// Makes the call, and gives back how it failed.
async fn fails(storage: &Storage, op: Op) -> Error {
    // A call that never ends is a failure of its own kind.
    tokio::time::timeout(Duration::from_secs(20), call(storage, op))
        .await
        .expect("an end")
        .expect_err("a call to a store that fails")
}

async fn call(storage: &Storage, op: Op) -> Result<(), Error> {
    let (at, id) = (at(), "upload-id");
    let part = Part { number: 1, etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(), size: 1 };
    match op {
        Op::OpenMultipart => storage.open_multipart(&at, "text/plain").await.map(drop),
        Op::ListUploads => storage.list_uploads(&at).await.map(drop),
        Op::ListParts => storage.list_parts(&at, id).await.map(drop),
        Op::CompleteMultipart => storage.complete_multipart(&at, id, &[part]).await,
        Op::AbortMultipart => storage.abort_multipart(&at, id).await,
        Op::Head => storage.head(&at).await.map(drop),
        Op::Get => storage.read(&at, 10).await.map(drop),
        Op::Put => storage.put_if_absent(&at, b"{}").await,
        Op::Copy => {
            let source = Source { at: &at, etag: "d41d8cd98f00b204e9800998ecf8427e", size: 1 };
            storage.copy(source, &at, "text/plain").await.map(drop)
        }
        Op::ListObjects => storage.objects("bucket", "temp/").next().await.map(drop),
        Op::Delete => storage.delete(&at).await,
        Op::Ready => storage.ready("bucket").await,
        Op::CreateBucket => storage.create_bucket("bucket").await,
        Op::SetCors => storage.set_cors("bucket", &["https://app.example.com".to_owned()]).await,
        Op::Credentials => storage.signer().await.map(drop),
    }
}

const CALLS: [Op; 14] = [
    Op::OpenMultipart,
    Op::ListUploads,
    Op::ListParts,
    Op::CompleteMultipart,
    Op::AbortMultipart,
    Op::Head,
    Op::Get,
    Op::Put,
    Op::Copy,
    Op::ListObjects,
    Op::Delete,
    Op::Ready,
    Op::CreateBucket,
    Op::SetCors,
];

#[tokio::test]
async fn what_a_store_does_not_delete_as_one_of_many_is_deleted_by_itself() {
    let store = Faulty::start(|_, request| match request.starts_with("POST") {
        true => error(501, "NotImplemented"),
        false => Does::Say(204, String::new()),
    })
    .await;
    let storage = store.storage().await;
    let all: Vec<_> = ["a", "b", "c"].map(|key| Location { bucket: "bucket".to_owned(), key: key.to_owned() }).into();
    assert!(storage.delete_all(&all).await.iter().all(Result::is_ok));
    assert_eq!(store.requests().len(), 4);
    // It is not asked for that again.
    assert!(storage.delete_all(&all).await.iter().all(Result::is_ok));
    assert_eq!(store.requests().len(), 7);

    // One that says nothing of an object has not deleted it.
    let some = "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>";
    let store = Faulty::start(|_, request| match request {
        post if post.starts_with("POST") => Does::Say(200, some.to_owned()),
        one if one.contains("/c") => error(403, "AccessDenied"),
        _ => Does::Say(204, String::new()),
    })
    .await;
    let deleted = store.storage().await.delete_all(&all).await;
    assert!(deleted[0].is_ok() && deleted[1].is_ok(), "{deleted:?}");
    assert_eq!(deleted[2].as_ref().unwrap_err().kind, ErrorKind::Refused);
    assert_eq!(store.requests().len(), 3, "all at once, and then b and c");
}

/// Each call against a store that always does the same: what the failure is called and how often it was asked.
async fn check(name: &str, does: Does, expected: impl Fn(Op) -> (ErrorKind, usize)) {
    for op in CALLS {
        let store = Faulty::always(does.clone()).await;
        let storage = store.storage().await;
        let error = fails(&storage, op).await;
        let (kind, attempts) = expected(op);
        assert_eq!((error.op, error.kind), (op, kind), "{name}: {error}");
        assert_eq!(store.requests().len(), attempts, "{name}: {error}");
        for secret in [SECRET, "ID-FOR-NO-LOG", "Signature", "http:", "temp/uploads"] {
            assert!(!error.to_string().contains(secret), "{name}: {error}");
        }
    }
}

/// Three attempts, but for the call that leaks when repeated and for the probe.
fn repeated(op: Op) -> usize {
    if matches!(op, Op::OpenMultipart | Op::Ready) { 1 } else { 3 }
}

#[tokio::test]
async fn trouble_of_the_store_is_repeated_where_that_is_safe() {
    check("500", error(500, "InternalError"), |op| (ErrorKind::Unavailable, repeated(op))).await;
    check("503 SlowDown", error(503, "SlowDown"), |op| {
        // The answer to a HEAD has no body, and so no code.
        let kind = if matches!(op, Op::Head | Op::Ready) { ErrorKind::Unavailable } else { ErrorKind::Throttled };
        (kind, repeated(op))
    })
    .await;
    check("429", Does::Say(429, String::new()), |op| (ErrorKind::Throttled, repeated(op))).await;
    check("502 of a proxy", Does::Say(502, "<html>Bad <br> Gateway".to_owned()), |op| {
        (ErrorKind::Unavailable, repeated(op))
    })
    .await;
    check("hang-up", Does::HangUp, |op| (ErrorKind::Unavailable, repeated(op))).await;
}

#[tokio::test]
async fn a_refusal_is_final() {
    check("403", error(403, "AccessDenied"), |_| (ErrorKind::Refused, 1)).await;
    check("400", error(400, "InvalidRequest"), |_| (ErrorKind::Invalid, 1)).await;
    // A conditional PUT is tried without the condition.
    check("501", error(501, "NotImplemented"), |op| (ErrorKind::Invalid, if op == Op::Put { 2 } else { 1 })).await;
    check("no bucket", error(404, "NoSuchBucket"), |op| {
        (if op == Op::Head { ErrorKind::NotFound } else { ErrorKind::Invalid }, 1)
    })
    .await;
    check("404 of a proxy", Does::Say(404, "<html>Not <br> Found".to_owned()), |op| {
        (if op == Op::Head { ErrorKind::NotFound } else { ErrorKind::Invalid }, 1)
    })
    .await;
}

/// Each attempt ends after a second.
#[tokio::test]
async fn a_store_that_hangs_times_out() {
    let one = async |op: Op, does: Does, attempts: usize| {
        let store = Faulty::always(does).await;
        let begun = Instant::now();
        let error = fails(&store.storage().await, op).await;
        assert_eq!((error.op, error.kind), (op, ErrorKind::TimedOut), "{error}");
        assert_eq!(store.requests().len(), attempts, "{error}");
        // A second each, pauses of 100 and 200 ms at most, and some slack.
        let longest = Duration::from_millis(1_000 * attempts as u64 + 300 + 1_000);
        assert!((Duration::from_secs(1)..longest).contains(&begun.elapsed()), "{op:?}: {:?}", begun.elapsed());
    };
    tokio::join!(
        one(Op::OpenMultipart, Does::Hang, 1),
        // The store may still be at work on it.
        one(Op::CompleteMultipart, Does::Hang, 1),
        one(Op::ListParts, Does::Hang, 3),
        one(Op::Head, Does::Hang, 3),
        one(Op::Ready, Does::Hang, 1),
        one(Op::ListParts, Does::Stall, 3),
        one(Op::CompleteMultipart, Does::Stall, 1),
    );
}

#[tokio::test]
async fn a_probe_does_not_wait_for_the_time_out_of_a_call() {
    let store = Faulty::always(Does::Hang).await;
    let patient = settings::Storage {
        read_timeout_secs: 30,
        attempt_timeout_secs: 60,
        ..settings(&format!("http://{}", store.address))
    };
    let begun = Instant::now();
    let error = fails(&Storage::connect(&patient).await.unwrap(), Op::Ready).await;
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    for op in [Op::OpenMultipart, Op::ListUploads, Op::ListParts, Op::CompleteMultipart] {
        let store = Faulty::always(Does::BreakOff).await;
        let error = fails(&store.storage().await, op).await;
        assert_eq!((error.op, error.kind), (op, ErrorKind::Unavailable), "{error}");
        assert_eq!(store.requests().len(), repeated(op), "{error}");
    }
}

#[tokio::test]
async fn nobody_at_the_address() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = fails(&Storage::connect(&settings(&format!("http://{address}"))).await.unwrap(), Op::Head).await;
    assert_eq!((error.op, error.kind), (Op::Head, ErrorKind::Unavailable), "{error}");
    assert!(error.code.contains("refused"), "{error}");
}

/// A full queue of connections that nobody accepts: the next one is never established.
#[tokio::test]
async fn a_connection_that_is_not_established_times_out() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    let impatient = settings::Storage {
        attempt_timeout_secs: 30,
        read_timeout_secs: 30,
        max_attempts: 1,
        ..settings(&format!("http://{address}"))
    };
    let begun = Instant::now();
    let error = fails(&Storage::connect(&impatient).await.unwrap(), Op::Head).await;
    assert_eq!((error.op, error.kind), (Op::Head, ErrorKind::TimedOut), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_call_goes_on_once_the_store_does() {
    let parts = "<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>\"e\"</ETag><Size>7</Size></Part>\
                 </ListPartsResult>";
    let store = Faulty::start(move |number, _| match number {
        0 => error(503, "SlowDown"),
        1 => Does::HangUp,
        _ => Does::Say(200, parts.to_owned()),
    })
    .await;
    let listed = store.storage().await.list_parts(&at(), "upload-id").await.unwrap();
    assert_eq!(listed, [Part { number: 1, etag: "e".to_owned(), size: 7 }]);
}

/// The first answer is lost, the second attempt finds the upload completed already.
#[tokio::test]
async fn a_repeated_complete_may_find_no_upload() {
    let store = Faulty::start(|number, _| if number == 0 { Does::HangUp } else { error(404, "NoSuchUpload") }).await;
    let error = fails(&store.storage().await, Op::CompleteMultipart).await;
    assert_eq!((error.kind, error.code.as_str()), (ErrorKind::NotFound, "NoSuchUpload"));
    assert_eq!(store.requests().len(), 2);
}

/// AWS begins with a 200 and blanks to keep the connection, and only then knows.
#[tokio::test]
async fn a_complete_that_fails_under_a_200_has_failed() {
    for (code, kind, attempts) in [("InternalError", ErrorKind::Unavailable, 3), ("InvalidPart", ErrorKind::Invalid, 1)]
    {
        let store = Faulty::always(error(200, code)).await;
        let error = fails(&store.storage().await, Op::CompleteMultipart).await;
        assert_eq!((error.kind, error.code.as_str()), (kind, code));
        assert_eq!(store.requests().len(), attempts);
    }
}

fn parts_page(numbers: impl Iterator<Item = u32>) -> Does {
    let parts: String = numbers
        .map(|n| format!("<Part><PartNumber>{n}</PartNumber><ETag>\"e{n}\"</ETag><Size>1</Size></Part>"))
        .collect();
    Does::Say(200, format!("<ListPartsResult><IsTruncated>true</IsTruncated>{parts}</ListPartsResult>"))
}

fn uploads_page(ids: impl Iterator<Item = usize>) -> Does {
    let key = at().key;
    let uploads: String = ids.map(|n| format!("<Upload><Key>{key}</Key><UploadId>{n}</UploadId></Upload>")).collect();
    let page = format!("<IsTruncated>true</IsTruncated>{uploads}");
    Does::Say(200, format!("<ListMultipartUploadsResult>{page}</ListMultipartUploadsResult>"))
}

#[tokio::test]
async fn a_list_of_parts_without_an_end_ends() {
    for (name, requests_max, plan) in [
        ("the same page again", 2, (|_| parts_page(1..=1000)) as fn(u32) -> Does),
        ("empty pages", 1, |_| parts_page(1..1)),
        ("numbers beyond all bounds", 11, |page| parts_page(page * 1000 + 1..=page * 1000 + 1000)),
        ("numbers out of order", 1, |_| parts_page([2, 1].into_iter())),
    ] {
        let store = Faulty::start(move |number, _| plan(number.try_into().unwrap())).await;
        let error = fails(&store.storage().await, Op::ListParts).await;
        assert_eq!(error.kind, ErrorKind::Unavailable, "{name}: {error}");
        assert_eq!(store.requests().len(), requests_max, "{name}");
    }
}

#[tokio::test]
async fn a_list_of_uploads_without_an_end_ends() {
    for (name, requests_max, plan) in [
        ("the same page again", 2, (|_| uploads_page(0..1000)) as fn(usize) -> Does),
        ("empty pages", 1, |_| uploads_page(0..0)),
        ("ever new ones", 11, |page| uploads_page(page * 1000..page * 1000 + 1000)),
    ] {
        let store = Faulty::start(move |number, _| plan(number)).await;
        let error = fails(&store.storage().await, Op::ListUploads).await;
        assert_eq!(error.kind, ErrorKind::Unavailable, "{name}: {error}");
        assert_eq!(store.requests().len(), requests_max, "{name}");
    }
}

#[tokio::test]
async fn uploads_of_later_keys_are_not_read() {
    let key = at().key;
    let uploads = format!(
        "<Upload><Key>{key}</Key><UploadId>mine</UploadId></Upload>\
         <Upload><Key>{key}-2</Key><UploadId>a neighbour's</UploadId></Upload>"
    );
    let page =
        format!("<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>{uploads}</ListMultipartUploadsResult>");
    let store = Faulty::always(Does::Say(200, page)).await;
    assert_eq!(store.storage().await.list_uploads(&at()).await.unwrap(), ["mine"]);
    assert_eq!(store.requests().len(), 1);
}

/// Garage does not say where the next page of uploads begins; the pages here say nothing of it at all.
#[tokio::test]
async fn pages_are_asked_for_by_what_was_read_last() {
    let store = Faulty::start(|number, _| if number == 0 { parts_page(1..=1000) } else { Does::HangUp }).await;
    fails(&store.storage().await, Op::ListParts).await;
    assert!(store.requests()[1].contains("part-number-marker=1000"), "{}", store.requests()[1]);

    let store = Faulty::start(|number, _| if number == 0 { uploads_page(0..1000) } else { Does::HangUp }).await;
    fails(&store.storage().await, Op::ListUploads).await;
    let second = &store.requests()[1];
    assert!(
        second.contains("upload-id-marker=999") && second.contains("key-marker=temp%2Fuploads%2Fx%2Foriginal"),
        "{second}"
    );
}

#[tokio::test]
async fn calls_go_below_the_path_of_the_endpoint() {
    let store = Faulty::always(error(403, "AccessDenied")).await;
    let storage = Storage::connect(&settings(&format!("http://{}/gate/s3", store.address))).await.unwrap();
    fails(&storage, Op::Head).await;
    assert_eq!(store.requests(), ["HEAD /gate/s3/bucket/temp/uploads/x/original HTTP/1.1"]);
}

/// The list of the objects under `temp/`, page by page to its end.
async fn list_objects(storage: &Storage) -> Result<Vec<String>, Error> {
    let mut pages = storage.objects("bucket", "temp/");
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await? {
        keys.extend(page.items.into_iter().map(|item| item.key));
    }
    Ok(keys)
}

async fn list_uploads(storage: &Storage) -> Result<Vec<String>, Error> {
    let mut pages = storage.uploads("bucket", "temp/");
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await? {
        ids.extend(page.items.into_iter().map(|item| item.upload_id));
    }
    Ok(ids)
}

fn objects_page(keys: &[&str], more: &str) -> String {
    let entry = |key| {
        format!("<Contents><Key>{key}</Key><LastModified>2026-11-21T00:00:00.000Z</LastModified></Contents>{more}")
    };
    let entries: String = keys.iter().map(entry).collect();
    format!("<ListBucketResult><IsTruncated>true</IsTruncated>{entries}</ListBucketResult>")
}

fn dated(date: &'static str, page: String) -> Does {
    Does::SayWith(200, format!("date: {date}\r\n"), page)
}

const DATE: &str = "Sat, 21 Nov 2026 10:00:00 GMT";

#[tokio::test]
async fn a_list_of_objects_without_an_end_ends() {
    for (name, requests_max, plan) in [
        ("the same page again", 2, (|_| dated(DATE, objects_page(&["temp/a", "temp/b"], ""))) as fn(usize) -> Does),
        ("empty pages", 1, |_| dated(DATE, objects_page(&[], ""))),
        ("keys out of order", 1, |_| dated(DATE, objects_page(&["temp/b", "temp/a"], ""))),
        ("a key twice", 1, |_| dated(DATE, objects_page(&["temp/a", "temp/a"], ""))),
        ("another prefix", 1, |_| dated(DATE, objects_page(&["tempo"], ""))),
        ("no date", 1, |_| Does::Say(200, objects_page(&["temp/a"], ""))),
        ("a date that is none", 1, |_| dated("today", objects_page(&["temp/a"], ""))),
        ("a key that is not UTF-8", 1, |_| {
            dated(DATE, objects_page(&["temp/%ff"], "<EncodingType>url</EncodingType>"))
        }),
    ] {
        let store = Faulty::start(move |number, _| plan(number)).await;
        let error = list_objects(&store.storage().await).await.unwrap_err();
        assert_eq!((error.op, error.kind), (Op::ListObjects, ErrorKind::Unavailable), "{name}: {error}");
        assert_eq!(store.requests().len(), requests_max, "{name}");
    }
}

#[tokio::test]
async fn keys_are_read_in_the_writing_that_the_store_chose() {
    for (encoding, key) in [("<EncodingType>url</EncodingType>", "temp/a b+%\u{1}"), ("", "temp/a+b%2B%25%01")] {
        let page = objects_page(&["temp/a+b%2B%25%01"], encoding).replace("true", "false");
        let store = Faulty::always(dated(DATE, page)).await;
        assert_eq!(list_objects(&store.storage().await).await.unwrap(), [key]);
        assert!(store.requests()[0].contains("encoding-type=url"), "{}", store.requests()[0]);
    }
}

fn started_uploads(entries: impl Iterator<Item = (usize, usize)>) -> Does {
    let entry = |(key, id)| {
        let started = "<Initiated>2026-11-21T00:00:00.000Z</Initiated>";
        format!("<Upload><Key>temp/{key:09}</Key><UploadId>{id}</UploadId>{started}</Upload>")
    };
    let entries: String = entries.map(entry).collect();
    let page = format!("<IsTruncated>true</IsTruncated>{entries}");
    dated(DATE, format!("<ListMultipartUploadsResult>{page}</ListMultipartUploadsResult>"))
}

#[tokio::test]
async fn a_list_of_uploads_under_a_prefix_without_an_end_ends() {
    for (name, requests_max, plan) in [
        ("the same page again", 2, (|_| started_uploads((0..3).map(|n| (n, n)))) as fn(usize) -> Does),
        ("one upload again and again", 2, |_| started_uploads([(1, 1)].into_iter())),
        ("empty pages", 1, |_| started_uploads([].into_iter())),
        ("a page of keys before those of the last", 2, |page| started_uploads((0..3).map(|n| (7 - 2 * page + n, n)))),
        ("ever new ones under one key", 11, |page| started_uploads((0..1_000).map(|n| (1, page * 1_000 + n)))),
        ("two pages under one key in turn", 11, |page| started_uploads((0..1_000).map(|n| (1, page % 2 * 1_000 + n)))),
    ] {
        let store = Faulty::start(move |number, _| plan(number)).await;
        let error = list_uploads(&store.storage().await).await.unwrap_err();
        assert_eq!((error.op, error.kind), (Op::ListUploads, ErrorKind::Unavailable), "{name}: {error}");
        assert_eq!(store.requests().len(), requests_max, "{name}");
    }
}

/// AWS begins with a 200 and blanks to keep the connection, and only then knows.
#[tokio::test]
async fn a_copy_that_fails_under_a_200_has_failed() {
    for (code, kind, attempts) in [
        ("InternalError", ErrorKind::Unavailable, 3),
        ("PreconditionFailed", ErrorKind::Changed, 1),
        ("NoSuchKey", ErrorKind::NotFound, 1),
    ] {
        let store = Faulty::always(error(200, code)).await;
        let error = fails(&store.storage().await, Op::Copy).await;
        assert_eq!((error.kind, error.code.as_str()), (kind, code));
        assert_eq!(store.requests().len(), attempts);
    }
}

/// A store answers once it has copied all: a copy has a second more for each 8 MiB. It is not repeated, because the store
/// may still be at it.
#[tokio::test]
async fn a_copy_has_time_by_its_size() {
    let store = Faulty::always(Does::Hang).await;
    let storage = store.storage().await;
    let copy = async |size: u64| {
        let begun = Instant::now();
        let from = at();
        let source = Source { at: &from, etag: "e", size };
        let error = storage.copy(source, &from, "text/plain").await.unwrap_err();
        assert_eq!((error.op, error.kind), (Op::Copy, ErrorKind::TimedOut), "{error}");
        begun.elapsed()
    };
    let (small, large) = tokio::join!(copy(1), copy(16 << 20));
    assert!((Duration::from_secs(1)..Duration::from_millis(2_500)).contains(&small), "{small:?}");
    assert!((Duration::from_secs(3)..Duration::from_millis(4_500)).contains(&large), "{large:?}");
    assert_eq!(store.requests().len(), 2);
}
