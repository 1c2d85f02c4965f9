//! The load of a noisy tenant. `noisy.rs` starts this binary again for each sort, as a process with idle priority: the
//! benchmark measures how the server divides its capacity, not what the generator uses.
//!
//! All load comes from an address that the quiet tenant's client does not use.

use std::collections::BTreeMap;
use std::io::{Write as _, stdin, stdout};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::iter;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::kit::{MIB, Store, id_of, new_upload, put_request};

const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Longer than the load lasts.
const LONG: Duration = Duration::from_secs(3600);
/// Pause between two attempts of a client that was refused.
const PAUSE: Duration = Duration::from_secs(1);

/// A sort of load.
pub struct Sort {
    pub name: &'static str,
    /// The only store that this sort is for; `None` if it is for both.
    pub only: Option<Store>,
    make: fn(Noise) -> BoxFuture<'static, ()>,
}

pub const SORTS: [Sort; 8] = [
    Sort { name: "wrong-batches", only: None, make: |noise| Box::pin(wrong_batches(noise)) },
    Sort { name: "unread-urls", only: None, make: |noise| Box::pin(unread_urls(noise)) },
    Sort { name: "readers", only: None, make: |noise| Box::pin(readers(noise)) },
    Sort { name: "aggregates", only: None, make: |noise| Box::pin(aggregates(noise)) },
    Sort { name: "batches", only: None, make: |noise| Box::pin(batches(noise)) },
    Sort { name: "completions", only: None, make: |noise| Box::pin(completions(noise)) },
    Sort { name: "slow-puts", only: Some(Store::Embedded), make: |noise| Box::pin(slow_puts(noise)) },
    Sort { name: "endless-bodies", only: None, make: |noise| Box::pin(endless_bodies(noise)) },
];

/// Batches of 1,000 files, each with a hundred unknown fields.
async fn wrong_batches(noise: Noise) {
    let mut file: Map<_, _> = (0..100).map(|number| (format!("unknown-{number}"), json!(number))).collect();
    file.insert("file_name".to_owned(), json!(7));
    noise.send_batches(16, &json!({ "files": vec![Value::from(file); 1_000] })).await;
}

/// Answers with 1,000 part URLs that nobody reads: they fill the sockets' buffers and then wait in the server.
async fn unread_urls(noise: Noise) {
    let session = noise.post_json("/app/uploads/initiate", &new_upload("reel.mov", 8_000 * MIB)).await.unwrap();
    let path = format!("/app/uploads/{}/multipart-part-urls", id_of(&session));
    let request = noise.request(&path, &json!({ "from": 1, "to": 1_000 }));
    noise.begin().await;
    noise
        .over_and_over(100, move |noise, _| {
            let request = request.clone();
            async move {
                let Some(mut socket) = noise.connect(&noise.place.server, 4_096).await else { return };
                noise.count(if socket.write_all(request.as_bytes()).await.is_ok() { "asked" } else { "closed" });
                sleep(5 * PAUSE).await;
            }
        })
        .await;
}

/// Live events and long polls of one user, more of either than the server allows one user.
async fn readers(noise: Noise) {
    let session = noise.post_json("/app/uploads/initiate", &new_upload("note.txt", 10)).await.unwrap();
    let wait = format!("/app/uploads/{}/wait?timeout=60", id_of(&session));
    noise.begin().await;
    // Client 0 causes events, so that the readers have something to be sent.
    noise
        .over_and_over(181, move |noise, client| {
            let wait = wait.clone();
            async move {
                match client {
                    0 => drop(noise.post_json("/app/uploads/initiate", &new_upload("note.txt", 10)).await),
                    1..=60 => noise.read("/app/events", LONG).await,
                    _ => noise.read(&wait, LONG).await,
                }
                sleep(if client == 0 { PAUSE / 20 } else { PAUSE }).await;
            }
        })
        .await;
}

/// Sums, lists and all events from the first one on, of a tenant with 20,000 sessions.
async fn aggregates(noise: Noise) {
    for number in 0..20 {
        let file = |file| json!({ "file_name": "a", "file_size": 1, "client_reference": format!("{number}-{file}") });
        let files: Vec<_> = (0..1_000).map(file).collect();
        let batch = json!({ "batch_reference": "all", "files": files });
        assert_eq!(noise.post_json("/app/uploads/initiate-batch", &batch).await.unwrap()["accepted"], 1_000);
    }
    noise.begin().await;
    noise
        .over_and_over(32, |noise, client| async move {
            match client % 5 {
                0 => noise.read("/app/batches/all", LONG).await,
                1 => noise.read("/app/uploads?limit=200&batch_reference=all", LONG).await,
                2 => noise.read("/app/uploads?limit=200&status=UPLOADING", LONG).await,
                // Only an operator may ask for it.
                3 => noise.read(&format!("/admin/tenants/{}/usage", noise.place.tenant), LONG).await,
                _ => noise.read("/app/events?last_event_id=0", 3 * PAUSE).await,
            }
        })
        .await;
}

/// Batches of 1,000 valid files from 200 clients at once.
async fn batches(noise: Noise) {
    noise.send_batches(200, &json!({ "files": vec![new_upload("note.txt", 10); 1_000] })).await;
}

/// Files that are completed faster than their assets are promoted. They are small: larger ones mostly load the store,
/// which clients reach without the server.
async fn completions(noise: Noise) {
    const BYTES: usize = 1_000;
    let files = json!({ "files": vec![new_upload("still.jpg", BYTES as u64); 50] });
    let bytes = Bytes::from(vec![b'x'; BYTES]);
    noise.begin().await;
    noise
        .over_and_over(8, move |noise, _| {
            let (files, bytes) = (files.clone(), bytes.clone());
            async move {
                let Some(opened) = noise.post_json("/app/uploads/initiate-batch", &files).await else { return };
                let uploads = opened["uploads"].as_array().into_iter().flatten().map(|file| &file["upload"]);
                let uploads: Vec<_> = uploads.filter(|upload| upload["upload_url"].is_string()).cloned().collect();
                iter(&uploads).for_each_concurrent(4, |upload| noise.put(upload, bytes.clone())).await;
                let ids = uploads.iter().map(|upload| json!({ "upload_session_id": id_of(upload) }));
                noise
                    .post_json("/app/assets/upload/complete-batch", &json!({ "uploads": ids.collect::<Vec<_>>() }))
                    .await;
            }
        })
        .await;
}

/// 600 idle connections to the store, and 100 PUTs at twice the slowest rate that the store accepts.
async fn slow_puts(noise: Noise) {
    noise.begin().await;
    noise
        .over_and_over(700, |noise, client| async move {
            if client < 100 {
                noise.slow_put().await
            } else {
                noise.idle().await
            }
            sleep(PAUSE).await;
        })
        .await;
}

/// Bodies that never end, of requests that the server answers without reading them: 401 and 404.
async fn endless_bodies(noise: Noise) {
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    noise.begin().await;
    noise
        .over_and_over(200, move |noise, client| {
            let (chunk, path) = (chunk.clone(), ["/app/uploads/initiate", "/app/nothing"][client % 2]);
            async move {
                let Some(mut socket) = noise.connect(&noise.place.server, 65_536).await else { return };
                let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
                let mut goes_on = socket.write_all(head.as_bytes()).await.is_ok();
                noise.count("begun");
                while goes_on {
                    goes_on = socket.write_all(chunk.as_bytes()).await.is_ok();
                    sleep(PAUSE / 50).await;
                }
                noise.count("closed");
            }
        })
        .await;
}

/// Where the load goes, and the noisy tenant's slug and tokens.
#[derive(Serialize, Deserialize)]
pub struct Place {
    /// Address of the server, such as `127.0.0.1:8080`; then that of its store.
    pub server: String,
    pub store: String,
    pub tenant: String,
    pub token: String,
    pub operator: String,
}

/// The state that all clients of a sort share.
#[derive(Clone)]
struct Noise {
    place: Arc<Place>,
    http: Client,
    /// How often each outcome occurred: the status of an answer, or an event on a connection.
    outcomes: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Lines read from standard input.
    orders: watch::Receiver<usize>,
}

/// Prepares a sort and prints a line; generates the load from the first line on standard input to the second; then prints a
/// line with the outcomes.
pub async fn make(sort: &str, place: &str) {
    let (counter, orders) = watch::channel(0);
    std::thread::spawn(move || {
        for _ in stdin().lines() {
            counter.send_modify(|lines| *lines += 1);
        }
        // The parent has ended, and so must this process.
        counter.send_modify(|lines| *lines = 2);
        std::thread::park();
    });
    let sort = SORTS.iter().find(|known| known.name == sort).expect("the sort is in the table");
    let http = Client::builder().no_proxy().tcp_nodelay(true).local_address(IpAddr::from(FROM)).build().unwrap();
    let place = Arc::new(serde_json::from_str(place).unwrap());
    let noise = Noise { place, http, outcomes: Arc::default(), orders: orders.clone() };
    tokio::select! {
        () = (sort.make)(noise.clone()) => unreachable!("a sort never ends by itself"),
        () = ordered(orders, 2) => {}
    }
    let outcomes = noise.outcomes.lock().unwrap();
    println!("{}", outcomes.iter().map(|(what, count)| format!("{what} × {count}")).collect::<Vec<_>>().join(", "));
}

async fn ordered(mut orders: watch::Receiver<usize>, lines: usize) {
    orders.wait_for(|read| *read >= lines).await.expect("the sender lives as long as the process");
}

impl Noise {
    /// Call this once everything is prepared: it waits for the order to begin.
    async fn begin(&self) {
        self.outcomes.lock().unwrap().clear();
        println!("ready");
        stdout().flush().unwrap();
        ordered(self.orders.clone(), 1).await;
    }

    /// Runs `clients` clients, numbered from 0, each of which repeats `act` forever.
    async fn over_and_over<F>(self, clients: usize, act: impl Fn(Self, usize) -> F + Clone + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let forever = |client| {
            let (noise, act) = (self.clone(), act.clone());
            async move {
                loop {
                    act(noise.clone(), client).await;
                }
            }
        };
        let clients: JoinSet<()> = (0..clients).map(forever).collect();
        clients.join_all().await;
    }

    /// Begins, and lets `clients` clients repeatedly send the same batch.
    async fn send_batches(self, clients: usize, batch: &Value) {
        let body = Bytes::from(batch.to_string());
        self.begin().await;
        self.over_and_over(clients, move |noise, _| {
            let body = body.clone();
            async move { drop(noise.post("/app/uploads/initiate-batch", body).await) }
        })
        .await;
    }

    fn count(&self, what: impl ToString) {
        *self.outcomes.lock().unwrap().entry(what.to_string()).or_default() += 1;
    }

    /// Sends a JSON body. Returns the answer's body if it is a success.
    async fn post(&self, path: &str, body: Bytes) -> Option<Value> {
        let request = self.http.post(format!("http://{}{path}", self.place.server)).bearer_auth(&self.place.token);
        let answer = self.answer(request.header("Content-Type", "application/json").body(body)).await?;
        let body = answer.bytes().await.ok()?;
        serde_json::from_slice(&body).ok()
    }

    async fn post_json(&self, path: &str, body: &Value) -> Option<Value> {
        self.post(path, body.to_string().into()).await
    }

    /// Sends the bytes of a direct upload.
    async fn put(&self, upload: &Value, bytes: Bytes) {
        self.answer(put_request(&self.http, upload).body(bytes)).await;
    }

    /// Reads an answer to its end, but no longer than `lasting`.
    async fn read(&self, path: &str, lasting: Duration) {
        let token = if path.starts_with("/admin") { &self.place.operator } else { &self.place.token };
        let request = self.http.get(format!("http://{}{path}", self.place.server)).bearer_auth(token);
        let read = async {
            let Some(mut answer) = self.answer(request).await else { return sleep(PAUSE / 10).await };
            while let Ok(Some(_)) = answer.chunk().await {}
        };
        // After the end or the timeout, the client is done with the answer.
        drop(timeout(lasting, read).await);
    }

    /// Counts how the request was answered. Returns the answer if it is a success.
    async fn answer(&self, request: RequestBuilder) -> Option<Response> {
        match request.send().await {
            Ok(answer) => {
                self.count(answer.status().as_u16());
                answer.status().is_success().then_some(answer)
            }
            Err(_) => {
                self.count("no answer");
                None
            }
        }
    }

    /// Formats a POST as text.
    fn request(&self, path: &str, body: &Value) -> String {
        let (Place { server, token, .. }, body) = (&*self.place, body.to_string());
        format!(
            "POST {path} HTTP/1.1\r\nHost: {server}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Opens a connection with a receive buffer of about `buffer` bytes. After a failure it waits for [`PAUSE`].
    async fn connect(&self, to: &str, buffer: u32) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(buffer).unwrap();
        socket.bind((FROM, 0).into()).unwrap();
        let connected = socket.connect(to.parse().unwrap()).await;
        if connected.is_err() {
            self.count("no connection");
            sleep(PAUSE).await;
        }
        connected.ok()
    }

    /// Connects to the store, sends nothing, and waits until the store closes.
    async fn idle(&self) {
        let Some(mut socket) = self.connect(&self.place.store, 4_096).await else { return };
        self.count("idle");
        drop(socket.read_u8().await);
        self.count("idle, closed");
    }

    /// Sends a file at twice `embedded.min_bytes_per_second`.
    async fn slow_put(&self) {
        const BYTES: usize = 1_000_000;
        let Some(upload) = self.post_json("/app/uploads/initiate", &new_upload("slow.bin", BYTES as u64)).await else {
            return;
        };
        let Some(mut socket) = self.connect(&self.place.store, 4_096).await else { return };
        let url: Url = upload["upload_url"].as_str().unwrap().parse().unwrap();
        let mut head = format!("PUT {}?{} HTTP/1.1\r\n", url.path(), url.query().unwrap_or_default());
        head += &format!("Host: {}\r\nContent-Length: {BYTES}\r\n", self.place.store);
        for (name, value) in upload["upload_headers"].as_object().unwrap() {
            head += &format!("{name}: {}\r\n", value.as_str().unwrap());
        }
        head += "\r\n";
        let mut goes_on = socket.write_all(head.as_bytes()).await.is_ok();
        self.count("slow PUT");
        while goes_on {
            goes_on = socket.write_all(&[b'x'; 8_192]).await.is_ok();
            sleep(PAUSE).await;
        }
        self.count("slow PUT, closed");
    }
}
