//! Connections: how slow, silent, greedy and refused clients are answered, and how the server stops.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embedded_s3::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::kit::*;

pub fn quick() -> Limits {
    let short = Duration::from_millis(300);
    Limits { header_timeout: short, keep_alive: short, idle_timeout: short, rate_min: 0, ..Limits::default() }
}

/// Reads until the server closes the connection.
pub async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await.expect("the connection closes") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The head of a presigned PUT, as text.
pub async fn put_head(store: &TestStore, key: &str, length: usize) -> String {
    let url = store.s3.put_object().bucket(BUCKET).key(key).presigned(minutes(5)).await.unwrap();
    let path = url.uri().strip_prefix(&store.url("")).unwrap();
    format!("PUT {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n", store.addr())
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut() {
    let store = TestStore::with(quick()).await;
    for said in ["", "P", "PUT /assets/a HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(store.addr()).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        until_closed(&mut stream).await;
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let store = TestStore::with(quick()).await;
    let mut stream = TcpStream::connect(store.addr()).await.unwrap();
    stream.write_all(put_head(&store, "a", 1000).await.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 500]).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("RequestTimeout"), "{answer}");
    let mut stream = TcpStream::connect(store.addr()).await.unwrap();
    stream.write_all(put_head(&store, "a", 1000).await.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 500]).await.unwrap();
    drop(stream);
    assert_eq!(store.blobs(0).await, 0, "nothing is left of an incomplete body");
    assert_eq!(store.s3.get_object().bucket(BUCKET).key("a").send().await.map_err(code).unwrap_err(), "NoSuchKey");
}

#[tokio::test]
async fn a_slow_body_is_fine_while_it_moves() {
    let store = TestStore::with(quick()).await;
    let mut stream = TcpStream::connect(store.addr()).await.unwrap();
    stream.write_all(put_head(&store, "a", 10).await.as_bytes()).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(until_closed(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(store.get("a").await, b"xxxxxxxxxx");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut() {
    let store = TestStore::with(quick()).await;
    store.put("a", noise(1, 32 * MIB)).await;
    let url = store.s3.get_object().bucket(BUCKET).key("a").presigned(minutes(5)).await.unwrap();
    let mut answer = store.send(&url, "").await;
    store.s3.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    // The bytes stay on the disk until the reader is cut.
    assert_eq!(store.blobs(0).await, 0);
    let mut got = 0;
    let end = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => got += chunk.len(),
            end => break end,
        }
    };
    assert!(end.is_err() && got < 32 * MIB, "{got} bytes came");
}

#[tokio::test]
async fn a_refused_sender_reads_why() {
    let store = TestStore::start().await;
    // Larger than all buffers in between: the answer comes while the client is still sending.
    for _ in 0..5 {
        let answer = store.http.put(store.url("/assets/a")).body(vec![0; 12 * MIB]).send().await.unwrap();
        assert_eq!(code_of(answer).await, (403, "AccessDenied".into()));
    }
    let url = store.s3.upload_part().bucket(BUCKET).key("a").upload_id("gone").part_number(1);
    let url = url.presigned(minutes(5)).await.unwrap();
    let answer = store.send(&url, vec![0; 8 * MIB]).await;
    assert_eq!(code_of(answer).await, (404, "NoSuchUpload".into()));
}

#[tokio::test]
async fn who_asks_first_is_told_without_sending() {
    let store = TestStore::start().await;
    let mut stream = TcpStream::connect(store.addr()).await.unwrap();
    let head = "PUT /assets/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let mut stream = TcpStream::connect(store.addr()).await.unwrap();
    let head = put_head(&store, "a", 5).await.replace("content-length", "expect: 100-continue\r\ncontent-length");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    stream.write_all(b"hello").await.unwrap();
    let mut rest = [0; 13 + 15];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest[13..], b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_body_needs_a_length_and_has_a_limit() {
    let store = TestStore::start().await;
    let url = store.s3.put_object().bucket(BUCKET).key("a").presigned(minutes(5)).await.unwrap();
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>("hello")]);
    let answer = store.http.put(url.uri()).body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    assert_eq!(code_of(answer).await, (411, "MissingContentLength".into()));
    let mut stream = TcpStream::connect(store.addr()).await.unwrap();
    let head = put_head(&store, "a", 5 * 1024 * MIB + 1).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).contains("EntityTooLarge"));
}

#[tokio::test]
async fn stopping_lets_what_runs_finish() {
    let mut store = TestStore::start().await;
    let mut sending = TcpStream::connect(store.addr()).await.unwrap();
    sending.write_all(put_head(&store, "a", 10).await.as_bytes()).await.unwrap();
    sending.write_all(b"hello").await.unwrap();
    let addr = store.addr();
    let idle = TcpStream::connect(addr).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let finish = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(TcpStream::connect(addr).await.is_err(), "new connections are refused");
        sending.write_all(b"world").await.unwrap();
        until_closed(&mut sending).await
    });
    let begun = Instant::now();
    store.stop(Duration::from_secs(20)).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(finish.await.unwrap().starts_with("HTTP/1.1 200"));
    drop(idle);
    let server = embedded_s3::start(config(store.dir.path(), Limits::default())).await.unwrap();
    let s3 = client(&format!("http://{}", server.addr()));
    let got = s3.get_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(got.body.collect().await.unwrap().to_vec(), b"helloworld");
    server.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let mut store = TestStore::start().await;
    let mut sending = TcpStream::connect(store.addr()).await.unwrap();
    sending.write_all(put_head(&store, "a", 10).await.as_bytes()).await.unwrap();
    sending.write_all(b"hello").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    store.stop(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    until_closed(&mut sending).await;
    assert_eq!(store.blobs(0).await, 0);
}

/// A log that records its lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_names_requests_but_no_signature() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // While tracing knows only one subscriber, a thread without one may disable a log line for all threads.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    // Only on this thread, which runs the whole test.
    let _guard = tracing::subscriber::set_default(log);
    let store = TestStore::start().await;
    let url = store.s3.put_object().bucket(BUCKET).key("a").presigned(minutes(5)).await.unwrap();
    lines.0.lock().unwrap().clear(); // drop what the SDK logged while signing
    let addr = store.addr();
    let url = url.uri().to_owned();
    // The client runs on another thread, so that its log lines are not recorded.
    let sent = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        let path = url.split_once(&addr.to_string()).unwrap().1;
        for path in [path, &path.replace("X-Amz-Expires=300", "X-Amz-Expires=299")] {
            let head = format!("PUT {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-length: 1\r\n\r\nx");
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            assert!(std::io::Read::read(&mut stream, &mut [0; 1024]).unwrap() > 0);
        }
    });
    while !sent.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("/assets/a") && text.contains("status=200") && text.contains("status=403"), "{text}");
    for secret in ["X-Amz", "Signature=", SECRET] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(!text.contains("ERROR"), "a refusal is not an error of the server: {text}");
}
