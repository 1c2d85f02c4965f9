//! The fault proxies: one between the server and its store, one between the server and PostgreSQL.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// An S3 call, as its method and query tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    CreateMultipartUpload,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
    ListMultipartUploads,
    HeadObject,
    GetObject,
    PutObject,
    DeleteObject,
    CopyObject,
    UploadPartCopy,
    ListObjects,
    Other,
}

impl Op {
    pub const ALL: [Self; 13] = [
        Self::CreateMultipartUpload,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
        Self::ListParts,
        Self::ListMultipartUploads,
        Self::HeadObject,
        Self::GetObject,
        Self::PutObject,
        Self::DeleteObject,
        Self::CopyObject,
        Self::UploadPartCopy,
        Self::ListObjects,
        Self::Other,
    ];

    fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        let in_bucket = request.uri().path().trim_matches('/').contains('/');
        let copies = request.headers().contains_key("x-amz-copy-source");
        match *request.method() {
            Method::POST if has("uploads") => Self::CreateMultipartUpload,
            Method::POST if has("uploadId") => Self::CompleteMultipartUpload,
            Method::DELETE if has("uploadId") => Self::AbortMultipartUpload,
            Method::DELETE if in_bucket => Self::DeleteObject,
            Method::GET if has("uploadId") => Self::ListParts,
            Method::GET if has("uploads") => Self::ListMultipartUploads,
            Method::GET if has("list-type") => Self::ListObjects,
            Method::GET if in_bucket => Self::GetObject,
            Method::PUT if copies && has("uploadId") => Self::UploadPartCopy,
            Method::PUT if copies => Self::CopyObject,
            Method::PUT if in_bucket => Self::PutObject,
            Method::HEAD if in_bucket => Self::HeadObject,
            _ => Self::Other,
        }
    }
}

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends before the store sees anything.
    DropRequest,
    /// The store does what it was asked, and nobody hears of it.
    DropAnswer,
    /// The store does what it was asked; the answer breaks off in its body.
    CutAnswer,
    /// This status and S3 error code, and the store sees nothing.
    Answer(u16, &'static str),
    /// A 200 with this body, and the store sees nothing.
    Say(String),
    /// Silence, for as long as the caller cares to wait.
    Hang,
}

/// Where a call is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Request,
    Answer,
}

/// A call that waits. Released when told to, or dropped.
#[derive(Debug)]
pub struct Held {
    arrived: Arc<Notify>,
    open: watch::Sender<bool>,
}

impl Held {
    /// Waits until a call stands at the gate.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub fn release(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

#[derive(Clone, Debug)]
struct Barrier {
    op: Op,
    gate: Gate,
    arrived: Arc<Notify>,
    open: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Orders {
    faults: HashMap<Op, Fault>,
    once: HashMap<Op, Fault>,
    barriers: Vec<Barrier>,
    calls: HashMap<Op, usize>,
    /// Seconds by which the store's clock is ahead of what it is.
    ahead_secs: i64,
}

/// Stands between the server and the store, and does to the calls what a story orders. Buffers whole bodies: nothing
/// large goes this way, since clients send their bytes to the store itself.
#[derive(Debug)]
pub struct StoreProxy {
    pub addr: SocketAddr,
    orders: Arc<Mutex<Orders>>,
    _connections: JoinSet<()>,
}

impl StoreProxy {
    pub async fn start(store: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let orders = Arc::<Mutex<Orders>>::default();
        let mut tasks = JoinSet::new();
        let for_calls = Arc::clone(&orders);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let orders = Arc::clone(&for_calls);
                connections.spawn(async move {
                    let service = service_fn(move |request| forward(store, Arc::clone(&orders), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await; // an error here is what the story ordered, or a client that went away
                });
            }
        });
        Self { addr, orders, _connections: tasks }
    }

    /// From now on, until [`StoreProxy::heal`].
    pub fn order(&self, op: Op, fault: Fault) {
        self.orders.lock().unwrap().faults.insert(op, fault);
    }

    /// For the next such call only.
    pub fn order_once(&self, op: Op, fault: Fault) {
        self.orders.lock().unwrap().once.insert(op, fault);
    }

    /// No call gets through.
    pub fn order_all(&self, fault: Fault) {
        for op in Op::ALL {
            self.order(op, fault.clone());
        }
    }

    /// Moves the store's clock on, as far as its answers tell it.
    pub fn advance(&self, by: TimeDelta) {
        self.orders.lock().unwrap().ahead_secs += by.num_seconds();
    }

    pub fn drop_answers(&self, op: Op) {
        self.order(op, Fault::DropAnswer);
    }

    pub fn heal(&self) {
        let mut orders = self.orders.lock().unwrap();
        orders.faults.clear();
        orders.once.clear();
    }

    /// How many such calls came in since the start, whatever became of them.
    pub fn calls(&self, op: Op) -> usize {
        self.orders.lock().unwrap().calls.get(&op).copied().unwrap_or(0)
    }

    /// Holds such calls up before the store sees them.
    pub fn hold_request(&self, op: Op) -> Held {
        self.hold(op, Gate::Request)
    }

    /// Lets the store do its work, and holds up the answer.
    pub fn hold_answer(&self, op: Op) -> Held {
        self.hold(op, Gate::Answer)
    }

    fn hold(&self, op: Op, gate: Gate) -> Held {
        let (sender, receiver) = watch::channel(false);
        let arrived = Arc::<Notify>::default();
        let barrier = Barrier { op, gate, arrived: Arc::clone(&arrived), open: receiver };
        self.orders.lock().unwrap().barriers.push(barrier);
        Held { arrived, open: sender }
    }
}

/// Why a connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(&'static str);

type Answer = Response<http_body_util::combinators::BoxBody<Bytes, Broken>>;

async fn forward(
    store: SocketAddr,
    orders: Arc<Mutex<Orders>>,
    request: Request<Incoming>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let op = Op::of(&request);
    let fault = {
        let mut orders = orders.lock().unwrap();
        *orders.calls.entry(op).or_default() += 1;
        orders.once.remove(&op).or_else(|| orders.faults.get(&op).cloned())
    };
    wait_at(&orders, op, Gate::Request).await;
    match fault {
        Some(Fault::DropRequest) => return Err(Broken("the story drops this request").into()),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Answer(status, code)) => return Ok(s3_error(status, code)),
        Some(Fault::Say(body)) => return Ok(xml(200, body)),
        Some(Fault::DropAnswer | Fault::CutAnswer) | None => {}
    }

    // The Host header goes along unchanged: it is signed.
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, Full::new(body.collect().await?.to_bytes()));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(store).await?)).await?;
    let connection = tokio::spawn(connection);
    let (mut head, body) = sender.send_request(request).await?.into_parts();
    let ahead_secs = orders.lock().unwrap().ahead_secs;
    if let Some(date) = head.headers.get_mut("date").filter(|_| ahead_secs != 0) {
        let told = DateTime::parse_from_rfc2822(date.to_str()?)?.to_utc() + TimeDelta::seconds(ahead_secs);
        *date = told.format("%a, %d %b %Y %H:%M:%S GMT").to_string().parse()?;
    }
    let body = body.collect().await?.to_bytes();
    connection.abort();

    wait_at(&orders, op, Gate::Answer).await;
    match fault {
        Some(Fault::DropAnswer) => Err(Broken("the story drops this answer").into()),
        Some(Fault::CutAnswer) => Ok(Response::from_parts(head, cut(&body))),
        Some(Fault::DropRequest | Fault::Hang | Fault::Answer(..) | Fault::Say(_)) | None => {
            Ok(Response::from_parts(head, Full::new(body).map_err(|never| match never {}).boxed()))
        }
    }
}

async fn wait_at(orders: &Mutex<Orders>, op: Op, gate: Gate) {
    let barrier =
        orders.lock().unwrap().barriers.iter().find(|b| b.op == op && b.gate == gate && !*b.open.borrow()).cloned();
    if let Some(mut barrier) = barrier {
        barrier.arrived.notify_one();
        let _ = barrier.open.wait_for(|open| *open).await; // the sender is gone: released as well
    }
}

/// The first half of a body, and then an end that the head did not announce.
fn cut(body: &Bytes) -> http_body_util::combinators::BoxBody<Bytes, Broken> {
    let half = body.slice(..body.len() / 2);
    let frames = [Ok(hyper::body::Frame::data(half)), Err(Broken("the story cuts this answer"))];
    BodyExt::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
}

fn s3_error(status: u16, code: &str) -> Answer {
    xml(
        status,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>ordered</Message></Error>"
        ),
    )
}

fn xml(status: u16, body: String) -> Answer {
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-type", "application/xml")
        .body(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed())
        .unwrap()
}

/// Passes bytes between the server and PostgreSQL, until a story cuts the line.
#[derive(Debug)]
pub struct Line {
    pub addr: SocketAddr,
    cut: watch::Sender<bool>,
    _connections: JoinSet<()>,
}

impl Line {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut is_cut = is_cut.clone();
                connections.spawn(async move {
                    tokio::select! {
                        _ = is_cut.wait_for(|cut| *cut) => {} // both sockets close, at once or in the middle
                        _ = async {
                            let mut far = TcpStream::connect(to).await?;
                            tokio::io::copy_bidirectional(&mut near, &mut far).await
                        } => {}
                    }
                });
            }
        });
        Self { addr, cut, _connections: tasks }
    }

    /// Ends every connection, and every new one.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn heal(&self) {
        self.cut.send_replace(false);
    }
}
