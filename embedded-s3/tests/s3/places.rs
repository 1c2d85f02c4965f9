//! Places: which client gets one when many want one, and how long a slow client keeps it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use embedded_s3::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::kit::*;
use crate::serving::{put_head, quick, until_closed};

/// Much longer than any step takes that does not wait for a timeout, and much shorter than the timeouts.
const SOON: Duration = Duration::from_secs(25);

/// Limits that end no connection within a story.
fn patient(connections_max: usize, connections_per_peer_max: usize) -> Limits {
    let long = Duration::from_secs(600);
    let limits = Limits { header_timeout: long, keep_alive: long, idle_timeout: long, ..Limits::default() };
    Limits { connections_max, connections_per_peer_max, ..limits }
}

async fn connect(store: &TestStore) -> TcpStream {
    TcpStream::connect(store.addr()).await.unwrap()
}

/// A PUT whose body stops after its first byte.
async fn slow_put(store: &TestStore, key: &str) -> TcpStream {
    let mut stream = connect(store).await;
    stream.write_all(put_head(store, key, 1000).await.as_bytes()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream
}

/// A client at another address of this machine.
fn neighbour() -> reqwest::Client {
    reqwest::Client::builder().local_address(Some(Ipv4Addr::new(127, 0, 0, 2).into())).build().unwrap()
}

async fn put_by(store: &TestStore, client: &reqwest::Client, key: &str) -> reqwest::Result<u16> {
    let url = store.s3.put_object().bucket(BUCKET).key(key).presigned(minutes(5)).await.unwrap();
    Ok(client.put(url.uri()).body("hello").send().await?.status().as_u16())
}

/// Reads the answer to a request with `content-length: 0`, and leaves the connection open.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(timeout(SOON, stream.read_u8()).await.expect("an answer").unwrap());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn idle_sockets_hold_up_nobody() {
    let store = TestStore::with(patient(40, 40)).await;
    let mut idle = Vec::new();
    for said in ["", "P", "PUT /assets/a HTTP/1.1\r\nhost: x\r\n"] {
        for _ in 0..15 {
            let mut stream = connect(&store).await;
            stream.write_all(said.as_bytes()).await.unwrap();
            idle.push(stream);
        }
    }
    for n in 0..15 {
        let mut stream = connect(&store).await;
        stream.write_all(put_head(&store, &format!("idle{n}"), 0).await.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        idle.push(stream);
    }
    for key in ["a", "b", "c"] {
        timeout(SOON, store.put(key, "hello")).await.expect("an idle connection makes room");
    }
    assert_eq!(timeout(SOON, put_by(&store, &neighbour(), "d")).await.expect("room for others").unwrap(), 200);
}

#[tokio::test]
async fn a_client_that_takes_all_places_has_no_more_than_its_share() {
    let store = TestStore::with(patient(12, 8)).await;
    let mut slow = Vec::new();
    for _ in 0..15 {
        slow.push(slow_put(&store, "one").await);
    }
    // Its own next request waits; another client's does not, nor do those of the process around the store.
    assert!(timeout(Duration::from_millis(500), store.put("mine", "x")).await.is_err());
    assert_eq!(timeout(SOON, put_by(&store, &neighbour(), "other")).await.expect("another share").unwrap(), 200);
    let own = store.own_client();
    let got = timeout(SOON, own.get_object().bucket(BUCKET).key("other").send()).await.expect("own places").unwrap();
    assert_eq!(got.body.collect().await.unwrap().to_vec(), b"hello");
    let keys = own.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(keys.key_count(), Some(1), "no slow request has ended");
    // A slow request continues where it was.
    slow[0].write_all(&[b'y'; 999]).await.unwrap();
    assert!(answer(&mut slow[0]).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_own_places_are_there_when_all_others_are_taken() {
    let store = TestStore::with(patient(4, 4)).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(slow_put(&store, "one").await);
    }
    assert!(timeout(Duration::from_millis(500), put_by(&store, &neighbour(), "other")).await.is_err());
    let put = store.own_client().put_object().bucket(BUCKET).key("own").send();
    timeout(SOON, put).await.expect("own places").unwrap();
}

#[tokio::test]
async fn who_waits_gets_the_next_place_and_too_many_are_told() {
    let store = TestStore::with(patient(2, 2)).await;
    let mut busy = vec![slow_put(&store, "a").await, slow_put(&store, "b").await];
    sleep(Duration::from_millis(300)).await; // they have their places before the next two come
    let mut waiting = vec![slow_put(&store, "c").await, slow_put(&store, "d").await];
    sleep(Duration::from_millis(300)).await;
    let mut refused = connect(&store).await;
    refused.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let refused = until_closed(&mut refused).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("<Code>SlowDown</Code>"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    for stream in &mut busy {
        stream.write_all(&[b'y'; 999]).await.unwrap();
        let told = until_closed(stream).await;
        assert!(told.starts_with("HTTP/1.1 200") && told.contains("connection: close"), "{told}");
    }
    for stream in &mut waiting {
        stream.write_all(&[b'y'; 999]).await.unwrap();
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let store = TestStore::with(Limits { header_timeout: Duration::from_millis(300), ..patient(1, 1) }).await;
    let _busy = slow_put(&store, "a").await;
    sleep(Duration::from_millis(100)).await;
    let told = until_closed(&mut slow_put(&store, "b").await).await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 503"), "{told}");
}

#[tokio::test]
async fn stopping_ends_who_waits_and_who_is_idle() {
    let mut store = TestStore::with(patient(1, 1)).await;
    let mut idle = connect(&store).await;
    let mut waiting = slow_put(&store, "a").await; // ends the idle connection, and takes its place
    until_closed(&mut idle).await;
    let mut last = connect(&store).await;
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    store.stop(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < SOON);
    until_closed(&mut waiting).await;
    until_closed(&mut last).await;
}

/// A minimum rate, with timeouts that suit a busy machine.
fn paced(rate_min: u32) -> Limits {
    Limits { idle_timeout: Duration::from_secs(3), rate_min, ..Limits::default() }
}

/// Sends a body of `length` bytes, `bytes` every tenth of a second, and returns the answer.
async fn trickle(store: &TestStore, length: usize, bytes: usize) -> String {
    let stream = connect(store).await;
    let head = put_head(store, "a", length).await;
    let (mut reading, mut writing) = stream.into_split();
    let sending = tokio::spawn(async move {
        writing.write_all(head.as_bytes()).await?;
        for _ in 0..length.div_ceil(bytes) {
            writing.write_all(&vec![b'x'; bytes]).await?;
            sleep(Duration::from_millis(100)).await;
        }
        std::io::Result::Ok(writing) // closed once the answer is read
    });
    let mut told = vec![0; 4096];
    let read = timeout(Duration::from_secs(60), reading.read(&mut told)).await.expect("an answer").unwrap();
    sending.abort();
    String::from_utf8_lossy(&told[..read]).into_owned()
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_and_a_slow_one_is_not() {
    let store = TestStore::with(paced(1000)).await;
    let slow = trickle(&store, 100_000, 2_000).await; // five seconds, at twenty times the minimum rate
    assert!(slow.starts_with("HTTP/1.1 200"), "{slow}");
    let told = trickle(&store, 10_000, 1).await; // 17 minutes, without a pause
    assert!(told.starts_with("HTTP/1.1 400") && told.contains("RequestTimeout"), "{told}");
    assert_eq!(store.blobs(1).await, 1, "nothing is left of the second body");
}

/// Sends a GET, and reads nothing of the answer yet.
async fn get(store: &TestStore, key: &str) -> TcpStream {
    let url = store.s3.get_object().bucket(BUCKET).key(key).presigned(minutes(5)).await.unwrap();
    let path = url.uri().strip_prefix(&store.url("")).unwrap();
    let mut stream = TcpSocket::new_v4().unwrap().connect(store.addr()).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", store.addr());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads up to `bytes` every tenth of a second, for the time `span`.
async fn sip(stream: &mut TcpStream, bytes: usize, span: Duration) -> std::io::Result<usize> {
    let (begun, mut buffer, mut taken) = (Instant::now(), vec![0; bytes], 0);
    while begun.elapsed() < span {
        match stream.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => taken += read,
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(taken)
}

#[tokio::test]
async fn a_slow_reader_is_cut_only_below_the_least_rate() {
    let store = TestStore::with(paced(1)).await;
    store.put("a", noise(1, 32 * MIB)).await;
    // 100 kB a second. The kernel's buffers turn that into a burst every second or two.
    let mut reader = get(&store, "a").await;
    sip(&mut reader, 10_000, Duration::from_secs(9)).await.expect("it is slow, and reads all the time");
    drop(reader);

    let store = TestStore::with(paced(10_000_000)).await;
    store.put("a", noise(1, 32 * MIB)).await;
    let mut reader = get(&store, "a").await;
    let slow = sip(&mut reader, 10_000, Duration::from_secs(9)).await.unwrap_or_default();
    let mut rest = Vec::new();
    let cut = reader.read_to_end(&mut rest).await.is_err();
    assert!(cut || slow + rest.len() < 32 * MIB, "the whole object was sent");
}

#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_a_head() {
    let store = TestStore::with(Limits { keep_alive: Duration::from_secs(600), ..quick() }).await;
    let mut stream = connect(&store).await;
    for key in ["a", "b"] {
        stream.write_all(put_head(&store, key, 0).await.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        sleep(Duration::from_millis(900)).await; // three times `header_timeout`
    }
    stream.write_all(b"PUT /assets/a HT").await.unwrap();
    until_closed(&mut stream).await;

    let store = TestStore::with(Limits { keep_alive: Duration::from_millis(300), ..Limits::default() }).await;
    let mut stream = connect(&store).await;
    stream.write_all(put_head(&store, "a", 0).await.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(until_closed(&mut stream).await, "");
}

#[tokio::test]
async fn a_head_has_its_limit() {
    let store = TestStore::with(patient(8, 8)).await;
    let mut stream = connect(&store).await;
    let half = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}", "x".repeat(40 * 1024));
    stream.write_all(half.as_bytes()).await.unwrap();
    let told = until_closed(&mut stream).await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 431"), "{told}");
    let key = "ü".repeat(512); // as long as S3 allows, and three times as long in the URL
    store.put(&key, "x").await;
    assert_eq!(store.get(&key).await, b"x");
}
