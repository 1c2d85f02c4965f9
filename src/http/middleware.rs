//! The middleware around every request: its id, its span, its line in the log, and the final answer to failures.

use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_cors::{Cors, CorsError};
use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, rt};
use entity::SessionId;
use futures_util::FutureExt;
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use super::door::Door;
use super::problem::{self, CONTENT_TYPE, Problem};
use crate::engine::Engine;
use crate::settings;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request's id: the client's own, or a new one. Handlers that put a problem inside an answer extract it.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// A client's id is used if it is 1 to 128 visible ASCII characters; anything else could forge a line in a log.
    fn of(headers: &HeaderMap) -> Self {
        let sane = |id: &&HeaderValue| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
        match headers.get(REQUEST_ID).filter(sane) {
            Some(id) => Self(id.clone()),
            None => Self(HeaderValue::try_from(Uuid::now_v7().to_string()).expect("a UUID is ASCII")),
        }
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl FromRequest for RequestId {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = req.extensions().get::<Self>().cloned();
        ready(id.ok_or_else(|| {
            Problem::internal(Some("the request has no id: `observe` is not wrapped around it".into())).into()
        }))
    }
}

/// Records the session's id in the request's span, for everything that is logged from here on.
pub fn name_session(id: SessionId) {
    Span::current().record("session.id", field::display(id));
}

/// Wraps everything that makes an answer: `App::wrap(from_fn(observe))`.
///
/// Handlers add `session.id` to the span by [`name_session`]. The line's `outcome` is the code of the request's problem,
/// `ok`, `refused` or `client-gone`. Neither the query string nor any header but the id is logged, because they may contain
/// secrets.
pub async fn observe(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let started = Instant::now();
    let id = RequestId::of(req.headers());
    let client = Door::of(req.request()).proxies.client(req.peer_addr(), req.headers());
    let route = req.match_pattern();
    let span = tracing::info_span!(
        "http.request",
        request.id = id.as_str(),
        http.method = req.method().as_str(),
        http.route = route.as_deref().unwrap_or("unknown"),
        client.address = client.map(field::display),
        tenant.id = field::Empty,
        session.id = field::Empty,
    );
    req.extensions_mut().insert(id.clone());
    let mut unanswered = Unanswered { span: span.clone(), started, is_over: false };
    let result = next.call(req).instrument(span.clone()).await;
    unanswered.is_over = true;

    let entered = span.enter();
    let quiet = matches!(route.as_deref(), Some("/healthz" | "/readyz"));
    let result = result.map(say_why_refused);
    let (status, problem) = match &result {
        Ok(response) => (response.status(), response.response().error()),
        Err(error) => (error.as_response_error().status_code(), Some(error)),
    };
    let problem = problem.and_then(Error::as_error::<Problem>);
    let outcome = outcome(status, problem);
    if let Some(problem) = problem {
        problem.log();
        note_damage(&result, problem);
    }
    log(status, outcome, started, quiet);
    drop(entered);
    let answer = result.map(|response| finish(response, &id));

    answer.map_err(|mut error| {
        // The request was dropped with the service that failed: an outer layer makes the answer from the error alone.
        let body = error.as_error::<Problem>().map(|problem| problem.body(Some(id.as_str())));
        error.add_response_mapper(move |mut response| {
            if let Some(body) = &body {
                response = response.set_body(BoxBody::new(body.clone()));
            }
            add_headers(response.headers_mut(), &id);
            response
        });
        error
    })
}

/// Reports a damaged database file to operators, if a request has met the damage.
fn note_damage<B>(result: &Result<ServiceResponse<B>, Error>, problem: &Problem) {
    let engine = result.as_ref().ok().and_then(|response| response.request().app_data::<Data<Engine>>());
    if let (Some(engine), Some(cause)) = (engine, problem.database_cause()) {
        engine.db.note_damage(cause, engine.clock.now());
    }
}

/// Writes the log line of a request whose client disconnected before the answer: its handler is dropped with the
/// connection.
struct Unanswered {
    span: Span,
    started: Instant,
    is_over: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.is_over {
            let _entered = self.span.enter();
            let duration_ms = self.started.elapsed().as_secs_f64() * 1e3;
            tracing::info!(outcome = "client-gone", duration_ms, "request");
        }
    }
}

/// Answers a preflight that CORS refuses with a problem, like every other refusal. Browsers show it to developers, but to no
/// page.
fn say_why_refused<B: MessageBody>(response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B>> {
    let refused = response.response().error().and_then(|error| error.as_error::<CorsError>());
    match refused.map(|refused| Problem::new(&problem::PREFLIGHT_REFUSED, refused.to_string())) {
        None => response.map_into_left_body(),
        Some(problem) => {
            let (req, _) = response.into_parts();
            ServiceResponse::from_err(problem, req).map_into_right_body()
        }
    }
}

fn finish<B: MessageBody>(response: ServiceResponse<B>, id: &RequestId) -> ServiceResponse<EitherBody<B>> {
    let body = response.response().error().and_then(|error| match error.as_error::<Problem>() {
        Some(problem) => Some(problem.body(Some(id.as_str()))),
        // A path that actix itself could not read is not found either.
        None if response.status() == StatusCode::NOT_FOUND => Some(Problem::not_found().body(Some(id.as_str()))),
        None => None,
    });
    let mut response = match body {
        None => response.map_into_left_body(),
        Some(body) => {
            let mut response = response.map_body(|_, _| EitherBody::right(BoxBody::new(body)));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            response
        }
    };
    add_headers(response.headers_mut(), id);
    response
}

fn add_headers(headers: &mut HeaderMap, id: &RequestId) {
    headers.insert(REQUEST_ID, id.0.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// The outcome of a request, in one word for the log.
fn outcome(status: StatusCode, problem: Option<&Problem>) -> &'static str {
    match problem {
        Some(problem) => problem.code(),
        // As `finish` answers it.
        None if status == StatusCode::NOT_FOUND => problem::NOT_FOUND.code,
        // The answer itself says why: readiness, or actix about a request that it could not read.
        None if status.is_client_error() || status.is_server_error() => "refused",
        None => "ok",
    }
}

fn log(status: StatusCode, outcome: &'static str, started: Instant, quiet: bool) {
    let duration_ms = started.elapsed().as_secs_f64() * 1e3;
    let status = status.as_u16();
    match status {
        500 => tracing::error!(http.status = status, outcome, duration_ms, "request"),
        501.. => tracing::warn!(http.status = status, outcome, duration_ms, "request"),
        _ if quiet => tracing::debug!(http.status = status, outcome, duration_ms, "request"),
        _ => tracing::info!(http.status = status, outcome, duration_ms, "request"),
    }
}

/// The innermost middleware: `App::wrap(from_fn(catch_panic))`, as the first `wrap`. A handler that panics answers 500,
/// and its worker goes on with all the other requests.
pub async fn catch_panic<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    // The state that handlers share is in the database, or behind locks that are taken even when poisoned.
    match AssertUnwindSafe(next.call(req)).catch_unwind().await {
        Ok(result) => result,
        // The panic hook has logged what happened, and where.
        Err(_) => Err(Problem::internal(None).into()),
    }
}

/// Around [`catch_panic`]: `App::wrap(from_fn(finish_writes))`. A handler is dropped with its connection when the client
/// disconnects. A request that may write runs to its end all the same; one that only reads ends there.
pub async fn finish_writes<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    if req.method().is_safe() {
        return next.call(req).await;
    }
    match rt::spawn(next.call(req).in_current_span()).await {
        Ok(result) => result,
        // An inner layer catches panics, so the task was cut off by the end of its worker.
        Err(error) => Err(Problem::internal(Some(error.into())).into()),
    }
}

/// Lets web pages of the configured origins call the server. Belongs between the two above and [`observe`].
pub fn cors(settings: &settings::Cors) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .expose_headers([REQUEST_ID, header::RETRY_AFTER, header::WWW_AUTHENTICATE])
        .max_age(3600);
    let cors = if settings.allowed_headers.iter().any(|name| name == "*") {
        cors.allow_any_header()
    } else {
        let own = [
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
            REQUEST_ID,
        ];
        settings.allowed_headers.iter().fold(cors.allowed_headers(own), |cors, name| cors.allowed_header(name.as_str()))
    };
    if settings.allowed_origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    settings.allowed_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

#[cfg(test)]
mod tests;
