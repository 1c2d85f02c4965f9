//! The accept loop: connections, their limits, and what surrounds the S3 service on the wire.
//!
//! HTTP/1.1 only. Browsers speak HTTP/2 over TLS alone, which ends at a proxy, and the detection of a
//! version would wait for a silent client without a limit.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::service::S3Service;
use s3s::{Body, HttpError, s3_error};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use uuid::Uuid;

use crate::idle::{IdleBody, IdleWrites};
use crate::store::Store;
use crate::{Limits, auth, cors, fault};

/// hyper's buffer for one connection. Larger ones buy nothing, smaller ones cost CPU.
const BUFFER_BYTES: usize = 256 * 1024;

/// S3's limit on the XML of one request is 1 to 2 MiB; ten thousand parts with checksums take that much.
pub const XML_MAX_BYTES: usize = 4 * 1024 * 1024;

pub struct Service {
    pub s3: S3Service,
    pub store: Store,
    pub limits: Limits,
}

/// Accepts connections until `stop`, and ends with what is needed to wait for them.
pub async fn accept(
    listener: TcpListener,
    service: Arc<Service>,
    stop: CancellationToken,
    kill: CancellationToken,
) -> (GracefulShutdown, TaskTracker) {
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let free = Arc::new(Semaphore::new(service.limits.connections_max));
    loop {
        // A place first, a connection second: those above the limit wait in the backlog of the kernel.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let place = Arc::clone(&free).acquire_owned().await;
                listener.accept().await.map(|(stream, _)| (stream, place))
            } => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly too many open files: give the others time to close theirs.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let connection = graceful.watch(connection(stream, Arc::clone(&service)));
        let kill = kill.clone();
        connections.spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke");
                    }
                }
                () = kill.cancelled() => {}
            }
            drop(place);
        });
    }
    (graceful, connections)
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, HttpError>> + Send>>;

/// A [`Service`] as hyper wants it.
struct Door(Arc<Service>);

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response<Body>;
    type Error = HttpError;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let service = Arc::clone(&self.0);
        Box::pin(async move { service.answer(request).await })
    }
}

fn connection(stream: TcpStream, service: Arc<Service>) -> http1::Connection<TokioIo<IdleWrites>, Door> {
    // Answers are small or streamed in large frames; waiting to fill packets only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let limits = service.limits;
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(IdleWrites::new(stream, limits.idle_timeout)), Door(service))
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
        let begun = Instant::now();
        let id = Uuid::new_v4().simple().to_string();
        let method = request.method().clone();
        let path = request.uri().path().to_owned(); // never the query: it may carry a signature
        let cors = self.store.cors.headers(&request);

        let waits = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| IdleBody::new(body, self.limits.idle_timeout, !waits));
        let (answer, trouble) = if cors::is_preflight(&request) {
            (Ok(self.store.cors.preflight(&request)), None)
        } else if let Some(refused) = refuse(&request) {
            (Ok(refused), None)
        } else {
            // s3s logs whole URLs, and every refusal as an error of ours. What matters is logged below.
            fault::watch(self.s3.call(request.map(Body::http_body)).with_subscriber(Dispatch::none())).await
        };

        let mut response = answer?;
        if method == Method::HEAD && response.headers().contains_key(header::CONTENT_RANGE) {
            // s3s answers 200, whatever its answer says of a range.
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

/// Headers that ask for what the store does not do. To do the rest would not be what the client insists on.
const NOT_DONE: [&str; 5] = [
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock",
    "x-amz-tagging",
    "x-amz-write-offset-bytes",
];

/// What `s3s` would take, and must not.
fn refuse<B>(request: &Request<B>) -> Option<Response<Body>> {
    let form = request.method() == Method::POST
        && request.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().get(..19).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/form-data"))
        });
    if form {
        // s3s reads a whole form into memory before it knows who sends it.
        return Some(cors::refusal(s3_error!(NotImplemented, "Uploads by HTML form are not implemented.")));
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if request.method() == Method::POST && length.is_some_and(|length: u64| length > XML_MAX_BYTES as u64) {
        // Every POST we know carries XML. s3s has the same limit, and answers 500 above it.
        return Some(cors::refusal(s3_error!(MaxMessageLengthExceeded, "Your request was too large.")));
    }
    let names = request.headers().keys().map(|name| name.as_str());
    if let Some(name) = names.into_iter().find(|name| NOT_DONE.iter().any(|not| name.starts_with(not))) {
        return Some(cors::refusal(s3_error!(NotImplemented, "The store does not know what {name} asks for.")));
    }
    if auth::is_version_2(request.uri(), request.headers()) {
        let why = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
        return Some(cors::refusal(s3_error!(InvalidRequest, "{why}")));
    }
    None
}
