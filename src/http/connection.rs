//! A connection, with limits on what a client may send between a request's head and the end of its answer.
//!
//! actix-http leaves some things without a limit. An incomplete head may grow to 128 KiB, and any head but a connection's
//! first may stay incomplete for ever. A chunked body that no handler reads is read and discarded for as long as it
//! arrives. And what a client sends after its request is read up to 128 KiB, and then polled for again and again. So
//! actix-http reads from a [`Connection`] instead of a bare socket, and [`hold`] tells it the stage of each request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Extensions, Payload, ResponseHead, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::ConnectionType;
use actix_web::middleware::Next;
use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage};
use futures_util::Stream;
use futures_util::task::noop_waker_ref;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::client_address::TrustedProxies;
use super::socket;
use crate::settings::Server;

/// How long a refused client may go on sending. A connection that is closed with unread bytes may lose the refusal that
/// was sent before.
pub(super) const LINGER: Duration = Duration::from_secs(1);

const HEAD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What all connections of the server share.
pub(super) struct Limits {
    head_max_bytes: usize,
    head_timeout: Duration,
    write_timeout: Duration,
    per_address_max: usize,
    proxies: TrustedProxies,
    /// Counts of each peer's connections.
    open: Mutex<HashMap<IpAddr, Open>>,
}

#[derive(Default)]
struct Open {
    /// Connections that have not sent a whole head yet.
    silent: usize,
    /// Connections that are kept open after an answer, from their first answer on.
    kept: usize,
}

impl Open {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Silent => &mut self.silent,
            Kind::Kept => &mut self.kept,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Silent,
    Kept,
}

impl Limits {
    pub(super) fn new(settings: &Server, proxies: TrustedProxies) -> Arc<Self> {
        Arc::new(Self {
            head_max_bytes: settings.head_max_bytes,
            head_timeout: Duration::from_secs(settings.head_timeout_secs),
            write_timeout: Duration::from_secs(settings.write_timeout_secs),
            per_address_max: settings.silent_connections_per_address_max,
            proxies,
            open: Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection in the counts of its peer.
struct Place {
    limits: Arc<Limits>,
    peer: IpAddr,
    /// A trusted proxy may have any number of connections.
    is_proxy: bool,
    counted: Option<Kind>,
}

impl Place {
    fn new(limits: &Arc<Limits>, address: IpAddr) -> Self {
        let is_proxy = limits.proxies.trust(address.to_canonical());
        Self { limits: Arc::clone(limits), peer: embedded_s3::peer_of(address), is_proxy, counted: None }
    }

    /// Counts the connection as kept open; returns `false` if the peer has reached its limit. It is counted once, so that
    /// further requests need not lock what all connections share.
    fn keep(&mut self) -> bool {
        matches!(self.counted, Some(Kind::Kept)) || self.count(Kind::Kept)
    }

    /// Stops counting the connection as silent, because it has sent a request.
    fn speak(&mut self) {
        if matches!(self.counted, Some(Kind::Silent)) {
            self.uncount();
        }
    }

    /// Returns `false` if the peer has reached its limit.
    fn count(&mut self, kind: Kind) -> bool {
        self.uncount();
        if self.is_proxy {
            return true;
        }
        let mut open = self.limits.open();
        let count = open.entry(self.peer).or_default().of(kind);
        if *count >= self.limits.per_address_max {
            return false;
        }
        *count += 1;
        self.counted = Some(kind);
        true
    }

    fn uncount(&mut self) {
        let Some(kind) = self.counted.take() else { return };
        let mut open = self.limits.open();
        if let Some(counts) = open.get_mut(&self.peer) {
            *counts.of(kind) -= 1;
            if counts.silent == 0 && counts.kept == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.uncount();
    }
}

/// The state that [`hold`], which answers on a connection, shares with [`Connection`], which reads from it.
struct Progress {
    /// Counts changes of the stage.
    turn: Cell<u64>,
    stage: Cell<Stage>,
    /// The reader's waker, while it waits for an answer to be made.
    reader: RefCell<Option<Waker>>,
    place: RefCell<Place>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// The next bytes are a head.
    #[default]
    Head,
    /// A request is being answered.
    Answering { has_body: bool },
    /// The answer was made before the request's body ended. actix-http reads on for [`LINGER`], then closes the
    /// connection.
    Lingering,
}

impl Progress {
    fn new(place: Place) -> Rc<Self> {
        Rc::new(Self {
            turn: Cell::default(),
            stage: Cell::default(),
            reader: RefCell::default(),
            place: RefCell::new(place),
        })
    }

    fn go(&self, stage: Stage) {
        self.stage.set(stage);
        self.turn.set(self.turn.get() + 1);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The stream that actix-http reads from and writes to.
pub(super) struct Connection {
    io: TcpStream,
    peer: SocketAddr,
    limits: Arc<Limits>,
    progress: Rc<Progress>,
    /// The turn of `progress` that the next four fields belong to.
    turn: u64,
    stage: Stage,
    /// Bytes read in this turn.
    read: usize,
    /// Whether actix-http has had a chance to parse these bytes into a request.
    is_parsed: bool,
    /// Runs from the first byte of a head that is not the connection's first. actix-http itself limits the first one, from
    /// the connection's beginning.
    deadline: Option<Pin<Box<Sleep>>>,
    refused: Option<Refused>,
}

/// The state of a connection from which nothing more is accepted. The refusal is sent when the connection is shut down,
/// after all answers.
struct Refused {
    unsent: &'static [u8],
    is_shut: bool,
    until: Pin<Box<Sleep>>,
}

impl Connection {
    /// # Errors
    /// The address has too many connections that have not sent a whole head.
    pub(super) fn accept(io: TcpStream, limits: &Arc<Limits>) -> io::Result<Self> {
        socket::bound_writes(&io, limits.write_timeout);
        let peer = io.peer_addr()?;
        let mut place = Place::new(limits, peer.ip());
        if !place.count(Kind::Silent) {
            return Err(io::Error::other("the address has too many connections that have not sent a request"));
        }
        Ok(Self {
            io,
            peer,
            limits: Arc::clone(limits),
            progress: Progress::new(place),
            turn: 0,
            stage: Stage::Head,
            read: 0,
            is_parsed: false,
            deadline: None,
            refused: None,
        })
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// For `on_connect_ext`: stores the progress where [`hold`] finds it.
    pub(super) fn introduce(&self, data: &mut Extensions) {
        data.insert(Rc::clone(&self.progress));
    }

    fn begin_turn(&mut self) {
        let (turn, stage) = (self.progress.turn.get(), self.progress.stage.get());
        if self.turn == turn {
            return;
        }
        // Bytes that were sent after a request that is now answered are the beginning of the next head.
        let was_answering = self.turn + 1 == turn && self.stage == (Stage::Answering { has_body: false });
        let is_ahead = was_answering && stage == Stage::Head && self.read > 0;
        self.turn = turn;
        self.stage = stage;
        self.read = 0;
        self.is_parsed = false;
        self.deadline = is_ahead.then(|| Box::pin(sleep(self.limits.head_timeout)));
    }

    fn refuse(&mut self, answer: &'static [u8]) {
        self.deadline = None;
        self.refused = Some(Refused { unsent: answer, is_shut: false, until: Box::pin(sleep(LINGER)) });
    }

    fn read_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            self.read += count;
            self.is_parsed = false;
        }
        polled
    }

    fn read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= self.limits.head_max_bytes {
            if self.is_parsed {
                // These bytes are not a whole head, or there would be a request by now.
                self.refuse(HEAD_TOO_LARGE);
                return Poll::Ready(Ok(()));
            }
            // These bytes may be a head and its body. actix-http makes a request of them once it has nothing to read.
            self.is_parsed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.read_some(cx, buf);
        if self.read > 0 && self.turn > 0 && self.deadline.is_none() {
            self.deadline = Some(Box::pin(sleep(self.limits.head_timeout)));
        }
        if polled.is_pending()
            && let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.refuse(HEAD_TOO_SLOW);
            return Poll::Ready(Ok(()));
        }
        polled
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        this.begin_turn();
        match this.stage {
            Stage::Head => this.read_head(cx, buf),
            // A client that sends this much after a request must wait for the answer.
            Stage::Answering { has_body: false } if this.read >= this.limits.head_max_bytes => {
                this.progress.reader.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
            Stage::Answering { .. } | Stage::Lingering => this.read_some(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, refused, .. } = self.get_mut();
        let Some(refused) = refused else { return Pin::new(io).poll_shutdown(cx) };
        let mut unread = [0; 4096];
        while refused.until.as_mut().poll(cx).is_pending() {
            if !refused.unsent.is_empty() {
                let count = ready!(Pin::new(&mut *io).poll_write(cx, refused.unsent))?;
                refused.unsent = &refused.unsent[count..];
            } else if !refused.is_shut {
                ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
                refused.is_shut = true;
            } else {
                let mut buf = ReadBuf::new(&mut unread);
                ready!(Pin::new(&mut *io).poll_read(cx, &mut buf))?;
                if buf.filled().is_empty() {
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Tells a request's connection the stage of the request, and holds the request's body until the answer has been made.
/// The outermost middleware.
///
/// If a part of the body is unread by then, actix-http closes the connection. If the body were dropped earlier, actix-http
/// would go on reading and discarding a chunked one for as long as bytes arrive.
pub(super) async fn hold(
    mut req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<Held>, Error> {
    let body = match req.take_payload() {
        Payload::None => None,
        payload => Some(Shared(Rc::new(RefCell::new(payload)))),
    };
    if let Some(body) = &body {
        req.set_payload(Payload::Stream { payload: Box::pin(body.clone()) });
    }
    let progress = req.conn_data::<Rc<Progress>>().cloned();
    let has_body = body.is_some();
    if let Some(progress) = &progress {
        progress.place.borrow_mut().speak();
        progress.go(Stage::Answering { has_body });
    }
    let exchange = Rc::new(Exchange { progress, body });
    if has_body {
        // actix-http asks for an answer as soon as it has the head. First let it take what arrived of the body with the
        // head, so that an answer that does not need the body does not cost the connection.
        tokio::task::yield_now().await;
    }
    match next.call(req).await {
        Ok(mut response) => {
            exchange.keep_or_close(response.response_mut().head_mut());
            Ok(response.map_body(|_, body| Held { body: body.boxed(), _exchange: exchange }))
        }
        Err(mut error) => {
            error.add_response_mapper(move |mut response| {
                exchange.keep_or_close(response.head_mut());
                response.map_body(|_, body| BoxBody::new(Held { body, _exchange: Rc::clone(&exchange) }))
            });
            Err(error)
        }
    }
}

/// A request's body, which its handler reads and [`Exchange`] checks afterwards.
#[derive(Clone)]
struct Shared(Rc<RefCell<Payload>>);

impl Stream for Shared {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

/// One request, from its head to the end of its answer.
struct Exchange {
    progress: Option<Rc<Progress>>,
    body: Option<Shared>,
}

impl Exchange {
    /// Closes the connection after the answer if its peer has reached its limit of connections that are kept open.
    fn keep_or_close(&self, head: &mut ResponseHead) {
        if let Some(progress) = &self.progress
            && !progress.place.borrow_mut().keep()
        {
            head.set_connection_type(ConnectionType::Close);
        }
    }

    /// Whether the whole body has arrived, read or not.
    fn has_whole_body(&mut self) -> bool {
        let Some(body) = &mut self.body else { return true };
        let mut cx = Context::from_waker(noop_waker_ref());
        loop {
            match Pin::new(&mut *body).poll_next(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // If the connection is gone, a handler that writes goes on and may still read its body: what is polled here would
        // be lost to it.
        let is_being_read = self.body.as_ref().is_some_and(|body| Rc::strong_count(&body.0) > 1);
        let stage = if !is_being_read && self.has_whole_body() { Stage::Head } else { Stage::Lingering };
        if let Some(progress) = &self.progress {
            progress.go(stage);
        }
    }
}

/// The body of an answer.
pub(super) struct Held {
    body: BoxBody,
    /// Dropped when actix-http has taken all of the body, or when the connection is gone.
    _exchange: Rc<Exchange>,
}

impl MessageBody for Held {
    type Error = Box<dyn StdError>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.body.as_pin_mut().poll_next(cx)
    }
}
