//! Frames answers to HEAD, and answers to clients that do not support chunks.

use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, Method, Version};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage as _, HttpRequest};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Marks a HEAD request, which is routed like the GET request that it asks about.
struct HeadOnly;

/// Whether only the head of the answer is sent. Then a handler need not wait for a body, or hold a place for it.
pub(super) fn wants_head_only(req: &HttpRequest) -> bool {
    req.extensions().contains::<HeadOnly>()
}

/// The middleware inside of CORS: `App::wrap(from_fn(frame))`.
///
/// Because of it, every path that answers GET also answers HEAD, with the same status and headers (RFC 9110, section
/// 9.3.2). A streamed body is sent without chunks to a client of HTTP/1.0, which does not support them (RFC 9112, section
/// 6.1): the end of the connection is the end of the body.
pub(super) async fn frame(
    mut req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody, Left>>, Error> {
    let head_only = req.method() == Method::HEAD;
    let knows_chunks = req.version() >= Version::HTTP_11;
    if head_only {
        req.head_mut().method = Method::GET;
        req.extensions_mut().insert(HeadOnly);
    }
    let mut response = next.call(req).await?;
    if head_only {
        return Ok(response.map_body(|_, body| EitherBody::right(Left::of(&body))));
    }
    if !knows_chunks && response.response().body().size() == BodySize::Stream {
        let head = response.response_mut().head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response.map_into_left_body())
}

/// Takes the place of a body that is not sent, and keeps its length, if it has one.
pub(super) struct Left(BodySize);

impl Left {
    fn of(body: &impl MessageBody) -> Self {
        Self(match body.size() {
            BodySize::Stream => BodySize::None,
            size @ (BodySize::None | BodySize::Sized(_)) => size,
        })
    }
}

impl MessageBody for Left {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}
