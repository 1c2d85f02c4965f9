//! The fault proxies: one between the server and its store, one between the server and PostgreSQL.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::lies::{Liar, Lie};

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
    /// The store's own answer, with this header.
    Header(&'static str, String),
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
    /// By how much more than it is what the store holds shall be old.
    age: TimeDelta,
}

/// Stands between the server and the store, and does to the calls what a story orders. Buffers whole bodies: nothing
/// large goes this way, since clients send their bytes to the store itself.
#[derive(Debug)]
pub struct StoreProxy {
    pub addr: SocketAddr,
    orders: Arc<Mutex<Orders>>,
    liar: Arc<Liar>,
    _connections: JoinSet<()>,
}

impl StoreProxy {
    /// `s3`: a way to the same store that does not lead by here.
    pub async fn start(store: SocketAddr, s3: aws_sdk_s3::Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let orders = Arc::<Mutex<Orders>>::default();
        let mut tasks = JoinSet::new();
        let for_calls = Arc::clone(&orders);
        let liar = Arc::new(Liar::new(s3));
        let lying = Arc::clone(&liar);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (orders, liar) = (Arc::clone(&for_calls), Arc::clone(&lying));
                connections.spawn(async move {
                    let service =
                        service_fn(move |request| forward(store, Arc::clone(&orders), Arc::clone(&liar), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await; // an error here is what the story ordered, or a client that went away
                });
            }
        });
        Self { addr, orders, liar, _connections: tasks }
    }

    /// From now on the store lies so, beside what it lies already, until [`StoreProxy::tell_the_truth`].
    pub fn lie(&self, lie: Lie) {
        self.liar.begin(lie);
    }

    pub fn tell_the_truth(&self) {
        self.liar.end();
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

    /// Makes all that the store holds older, as far as its answers tell. Its clock cannot be moved: signatures rest on it.
    pub fn age(&self, by: TimeDelta) {
        self.orders.lock().unwrap().age += by;
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
    liar: Arc<Liar>,
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
        Some(Fault::DropAnswer | Fault::CutAnswer | Fault::Header(..)) | None => {}
    }

    // The Host header goes along unchanged: it is signed.
    let (asked, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if let Some(lie) = liar.instead(op, &asked, &body).await? {
        return Ok(lie.map(|body| Full::new(body).map_err(|never| match never {}).boxed()));
    }
    let request = Request::from_parts(asked.clone(), Full::new(body));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(store).await?)).await?;
    let connection = tokio::spawn(connection);
    let (mut head, body) = sender.send_request(request).await?.into_parts();
    let mut body = body.collect().await?.to_bytes();
    let age = orders.lock().unwrap().age;
    if age != TimeDelta::zero() {
        body = age_answer(&mut head.headers, body, age)?;
    }
    body = liar.bend(op, &asked, &mut head, body);
    connection.abort();

    wait_at(&orders, op, Gate::Answer).await;
    if let Some(Fault::Header(name, value)) = &fault {
        head.headers.insert(*name, value.parse()?);
    }
    match fault {
        Some(Fault::DropAnswer) => Err(Broken("the story drops this answer").into()),
        Some(Fault::CutAnswer) => Ok(Response::from_parts(head, cut(&body))),
        Some(Fault::DropRequest | Fault::Hang | Fault::Answer(..) | Fault::Say(_) | Fault::Header(..)) | None => {
            Ok(Response::from_parts(head, Full::new(body).map_err(|never| match never {}).boxed()))
        }
    }
}

/// Moves the times at which parts and objects arrived back.
fn age_answer(
    headers: &mut HeaderMap,
    body: Bytes,
    age: TimeDelta,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    if let Some(modified) = headers.get_mut("last-modified") {
        let aged = DateTime::parse_from_rfc2822(modified.to_str()?)?.to_utc() - age;
        *modified = aged.format("%a, %d %b %Y %H:%M:%S GMT").to_string().parse()?;
    }
    const TAG: &str = "<LastModified>";
    let Some(text) = std::str::from_utf8(&body).ok().filter(|text| text.contains(TAG)) else { return Ok(body) };
    let mut pieces = text.split(TAG);
    let mut aged = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (time, rest) = piece.split_once('<').ok_or("a tag that nobody closes")?;
        let time = DateTime::parse_from_rfc3339(time)?.to_utc() - age;
        aged.push_str(&format!("{TAG}{}<{rest}", time.format("%Y-%m-%dT%H:%M:%S%.3fZ")));
    }
    headers.remove("content-length");
    Ok(aged.into())
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

/// Passes bytes between the server and PostgreSQL, until a story cuts the line, or silences it.
#[derive(Debug)]
pub struct Line {
    pub addr: SocketAddr,
    mode: watch::Sender<Mode>,
    _connections: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Whole,
    Cut,
    Silent,
    /// On new connections alone.
    SilentOnNew,
}

/// How long PostgreSQL does not hear that a silent connection was given up by the server: a keepalive's time.
const UNHEARD: Duration = Duration::from_secs(25);

impl Line {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, changes) = watch::channel(Mode::Whole);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let mut changes = changes.clone();
                connections.spawn(async move {
                    let mut cut = changes.clone();
                    tokio::select! {
                        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {} // both sockets close, at once or in the middle
                        _ = pass_on(near, to, &mut changes) => {}
                    }
                });
            }
        });
        Self { addr, mode, _connections: tasks }
    }

    /// Ends every connection, and every new one.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// From here on nothing more is heard on any connection, nor on any new one, and none is closed. [`Line::heal`] lets
    /// new ones through; those of now stay as they are.
    pub fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// From here on nothing is heard on any new connection; those of now go on.
    pub fn silence_new(&self) {
        self.mode.send_replace(Mode::SilentOnNew);
    }

    pub fn heal(&self) {
        self.mode.send_replace(Mode::Whole);
    }
}

async fn pass_on(mut near: TcpStream, to: SocketAddr, changes: &mut watch::Receiver<Mode>) -> std::io::Result<()> {
    let mut far = None;
    let is_silent = matches!(*changes.borrow_and_update(), Mode::Silent | Mode::SilentOnNew);
    if !is_silent {
        let far = far.insert(TcpStream::connect(to).await?);
        tokio::select! {
            _ = changes.wait_for(|mode| *mode == Mode::Silent) => {}
            ended = tokio::io::copy_bidirectional(&mut near, far) => return ended.map(drop),
        }
    }
    // What the server still says goes nowhere.
    tokio::io::copy(&mut near, &mut tokio::io::sink()).await?;
    if far.is_some() {
        tokio::time::sleep(UNHEARD).await;
    }
    Ok(())
}
