//! What happens around every request: its id, its span, its problem document, its line in the log.

use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};
use tracing::{Instrument as _, error, field, info, info_span, warn};
use uuid::Uuid;

use super::problem::{Problem, RequestId};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id, runs it in a task of its own, and renders whatever problem came of it.
///
/// In a task of its own, because a client that hangs up must not stop a verb halfway, and a panic must hurt nobody else.
pub(super) async fn around(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = request_id(&request);
    let (method, path) = (request.method().to_string(), request.path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = info_span!("http.request", request.id = %id, http.method = %method, http.path = %path);
    let started = Instant::now();
    let served = actix_web::rt::spawn(next.call(request).instrument(span.clone())).await;
    let _entered = span.entered();
    let mut answer = match served {
        Ok(answer) => answer?.map_into_boxed_body(),
        Err(_) => {
            error!("a handler panicked");
            return Err(Problem::Internal.into());
        }
    };
    let problem = answer.response().error().and_then(|error| error.as_error::<Problem>()).map(|problem| {
        if let (true, Some(cause)) = (answer.status().is_server_error(), problem.cause()) {
            warn!(error = cause, "not done");
        }
        problem.answer(id.clone())
    });
    if let Some(mut rendered) = problem {
        // A wrong method names the right ones in a header that the resource has set.
        for (name, value) in answer.headers() {
            if !rendered.headers().contains_key(name) {
                rendered.headers_mut().insert(name.clone(), value.clone());
            }
        }
        answer = answer.into_response(rendered);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    let status = answer.status().as_u16();
    info!(http.status = status, duration_ms = field::display(started.elapsed().as_millis()), "answered");
    Ok(answer)
}

/// The caller's own, where it is short and plain; else a new one.
fn request_id(request: &ServiceRequest) -> String {
    let theirs = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sane = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    theirs.filter(sane).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}
