//! The accept loop: connections, their limits, and the HTTP handling around the S3 service.
//!
//! HTTP/1.1 only. Browsers use HTTP/2 only over TLS, which ends at a proxy, and detecting the version would
//! wait for a silent client without a limit.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3Service;
use s3s::{Body, HttpError, StdError, s3_error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use uuid::Uuid;

use crate::idle::{IdleBody, IdleStream};
use crate::places::{Activity, Busy, Places};
use crate::store::Store;
use crate::{Limits, auth, cors, fault};

/// hyper's buffer for one connection. A larger one gains nothing, a smaller one costs CPU.
const BUFFER_BYTES: usize = 256 * 1024;

/// Largest head of a request: S3 allows 8 KiB of headers, and a URL holds a key of 1,024 bytes, each encoded as three.
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// How long a client without a place may take to receive its 503, and how many clients receive one at a time.
const TURN_AWAY_MAX_TIME: Duration = Duration::from_secs(1);
const TURN_AWAY_MAX: usize = 64;

/// S3's limit on the XML of one request is 1 to 2 MiB; ten thousand parts with checksums take that much.
pub const XML_MAX_BYTES: usize = 4 * 1024 * 1024;

pub struct Service {
    pub s3: S3Service,
    pub store: Store,
    pub limits: Limits,
}

/// Handles that end connections and wait for them, and the limit shared by clients without a place.
#[derive(Clone)]
pub struct Tasks {
    /// Once cancelled, no new connection and no new request is accepted.
    pub stop: CancellationToken,
    /// Once cancelled, all connections end at once.
    pub kill: CancellationToken,
    pub running: TaskTracker,
    turning_away: Arc<Semaphore>,
}

impl Tasks {
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            running: TaskTracker::new(),
            turning_away: Arc::new(Semaphore::new(TURN_AWAY_MAX)),
        }
    }
}

/// Accepts connections until `tasks.stop` is cancelled.
pub async fn accept(listener: TcpListener, places: Arc<Places>, service: Arc<Service>, tasks: Tasks) {
    loop {
        let accepted = tokio::select! {
            () = tasks.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let connection = serve(stream, from.ip(), Arc::clone(&places), Arc::clone(&service), tasks.clone());
                tasks.running.spawn(connection);
            }
            Err(error) => {
                // Usually too many open files: free one, and give other connections time to close theirs.
                tracing::warn!(%error, "cannot accept a connection");
                places.free_a_file();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection, from the wait for its place to its end.
async fn serve(stream: TcpStream, from: IpAddr, places: Arc<Places>, service: Arc<Service>, tasks: Tasks) {
    let seat = tokio::select! {
        () = tasks.stop.cancelled() => return,
        seat = places.enter(from, service.limits.header_timeout) => seat,
    };
    let Some(seat) = seat else {
        tracing::debug!(%from, "no place for another connection");
        if let Ok(_one_of_few) = tasks.turning_away.try_acquire() {
            turn_away(stream).await;
        }
        return;
    };
    let mut connection = pin!(connection(stream, service, Arc::clone(&seat.activity)));
    let mut closing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = tasks.kill.cancelled() => return,
            () = tasks.stop.cancelled(), if !closing => {}
            () = seat.activity.leaving(), if !closing => {
                // A connection with half a head would not end by itself.
                if seat.activity.is_idle() {
                    return;
                }
            }
        }
        closing = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// Answers 503 to a client without a place, once it has sent something: many clients take an earlier answer for garbage.
/// Best effort: a client that sends for longer than [`TURN_AWAY_MAX_TIME`] sees a broken connection.
async fn turn_away(mut stream: TcpStream) {
    const BODY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SlowDown</Code>\
                        <Message>Too many connections. Please reduce your request rate.</Message></Error>";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/xml\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let told = timeout(TURN_AWAY_MAX_TIME, async {
        let mut unread = vec![0; 4096];
        if stream.read(&mut unread).await? == 0 {
            return Ok(()); // the client has closed the connection
        }
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes resets the connection, and the answer may be lost.
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    });
    if !matches!(told.await, Ok(Ok(()))) {
        tracing::debug!("a client without a place may not have received its 503");
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Answer>, HttpError>> + Send>>;

/// Adapts a [`Service`] to hyper, for one connection.
struct Door {
    service: Arc<Service>,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response<Answer>;
    type Error = HttpError;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let service = Arc::clone(&self.service);
        let activity = Arc::clone(&self.activity);
        // The connection is in use from here on, before anything is awaited.
        let (receiving, answering) = (activity.begin(), activity.begin());
        Box::pin(async move {
            let mut response = service.answer(request, receiving).await?;
            if activity.is_wanted() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer { body, _busy: answering }))
        })
    }
}

/// An answer's body. Its connection counts as in use until the body is dropped.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Connection = http1::Connection<TokioIo<IdleStream>, Door>;

fn connection(stream: TcpStream, service: Arc<Service>, activity: Arc<Activity>) -> Connection {
    // Answers are small or streamed in large frames; waiting to fill packets only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let limits = service.limits;
    let stream = IdleStream::new(stream, &limits, Arc::clone(&activity));
    http1::Builder::new()
        .timer(TokioTimer::new())
        // `IdleStream` enforces both limits. hyper reads on after an answer, and so lets the stream check them, only if
        // it has a timeout of its own.
        .header_read_timeout(limits.keep_alive.saturating_add(limits.header_timeout))
        .max_header_size(HEAD_MAX_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), Door { service, activity })
}

impl Service {
    async fn answer(&self, request: Request<Incoming>, receiving: Busy) -> Result<Response<Body>, HttpError> {
        let begun = Instant::now();
        let id = Uuid::new_v4().simple().to_string();
        let method = request.method().clone();
        let path = request.uri().path().to_owned(); // never the query: it may carry a signature
        let cors = self.store.cors.headers(&request);

        let waits = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| IdleBody::new(body, &self.limits, receiving, !waits));
        let (answer, trouble) = if cors::is_preflight(&request) {
            (Ok(self.store.cors.preflight(&request)), None)
        } else if let Some(refused) = refuse(&request) {
            (Ok(refused), None)
        } else {
            // s3s logs whole URLs, and logs every refusal as a server error. The lines that matter are logged below.
            fault::watch(self.s3.call(request.map(Body::http_body)).with_subscriber(Dispatch::none())).await
        };

        let mut response = answer?;
        let ranged = response.headers().contains_key(header::CONTENT_RANGE);
        if method == Method::HEAD && ranged && response.status() == StatusCode::OK {
            // s3s answers 200 even with a Content-Range.
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        let headers = response.headers_mut();
        for (name, value) in cors.into_iter().flatten() {
            if let Some(name) = name {
                headers.insert(name, value);
            }
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert("x-amz-request-id", id);
        }
        let status = response.status().as_u16();
        let ms = begun.elapsed().as_millis();
        match trouble {
            Some(error) => tracing::error!(request.id = id, %method, path, status, ms, error, "a request failed"),
            None => tracing::debug!(request.id = id, %method, path, status, ms, "answered"),
        }
        Ok(response)
    }
}

/// Prefixes of headers that ask for features that the store does not have. It refuses such a request as a whole: doing
/// only the rest would not be what the client asked for.
const UNSUPPORTED_HEADERS: [&str; 5] = [
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock",
    "x-amz-tagging",
    "x-amz-write-offset-bytes",
];

/// Refuses requests that `s3s` would accept, but must not.
fn refuse<B>(request: &Request<B>) -> Option<Response<Body>> {
    let form = request.method() == Method::POST
        && request.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().get(..19).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/form-data"))
        });
    if form {
        // s3s reads a whole form into memory before it authenticates the sender.
        return Some(cors::refusal(s3_error!(NotImplemented, "Uploads by HTML form are not implemented.")));
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if request.method() == Method::POST && length.is_some_and(|length: u64| length > XML_MAX_BYTES as u64) {
        // Every supported POST carries XML. s3s has the same limit, but answers 500 above it.
        return Some(cors::refusal(s3_error!(MaxMessageLengthExceeded, "Your request was too large.")));
    }
    let names = request.headers().keys().map(|name| name.as_str());
    if let Some(name) = names.into_iter().find(|name| UNSUPPORTED_HEADERS.iter().any(|not| name.starts_with(not))) {
        return Some(cors::refusal(s3_error!(NotImplemented, "The store does not support the header {name}.")));
    }
    if auth::is_version_2(request.uri(), request.headers()) {
        let why = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
        return Some(cors::refusal(s3_error!(InvalidRequest, "{why}")));
    }
    None
}
