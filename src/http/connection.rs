//! A connection, and what is on it between a request's head and the end of its answer.
//!
//! actix-http leaves some things without a bound. A head that stops halfway may be 128 KiB large, and any but a
//! connection's first may stay so for ever. A chunked body that no handler reads is read and thrown away for as long as it
//! comes. And what a client sends behind its request is read up to 128 KiB, and then asked for again and again. So what
//! actix-http reads from is a [`Connection`], and [`hold`] tells it where each request stands.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Extensions, Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
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

/// How long a client that is refused may go on sending: a connection that is closed with bytes unread may lose the refusal
/// that was sent before.
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
    /// Connections of each address that have not sent a whole head yet.
    silent: Mutex<HashMap<IpAddr, usize>>,
}

impl Limits {
    pub(super) fn new(settings: &Server, proxies: TrustedProxies) -> Arc<Self> {
        Arc::new(Self {
            head_max_bytes: settings.head_max_bytes,
            head_timeout: Duration::from_secs(settings.head_timeout_secs),
            write_timeout: Duration::from_secs(settings.write_timeout_secs),
            per_address_max: settings.silent_connections_per_address_max,
            proxies,
            silent: Mutex::default(),
        })
    }

    /// A place among the silent connections of this address; `None` for a trusted proxy, which needs none.
    ///
    /// # Errors
    /// The address has as many as it may have.
    fn place(self: &Arc<Self>, address: IpAddr) -> io::Result<Option<Place>> {
        let address = address.to_canonical();
        if self.proxies.trust(address) {
            return Ok(None);
        }
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = silent.entry(address).or_default();
        if *taken >= self.per_address_max {
            return Err(io::Error::other("the address has too many connections that have not asked for anything"));
        }
        *taken += 1;
        Ok(Some(Place { limits: Arc::clone(self), address }))
    }
}

/// Counts among the silent connections of an address until it is dropped.
struct Place {
    limits: Arc<Limits>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut silent = self.limits.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = silent.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                silent.remove(&self.address);
            }
        }
    }
}

/// What whoever reads from a connection is told by whoever answers on it.
#[derive(Default)]
struct Progress {
    /// Counts changes of the stage.
    turn: Cell<u64>,
    stage: Cell<Stage>,
    /// Of the reader, where it waits for an answer to be made.
    reader: RefCell<Option<Waker>>,
    place: RefCell<Option<Place>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Whatever comes is a head.
    #[default]
    Head,
    /// A request is being answered.
    Answering { has_body: bool },
    /// The answer has been made, and its request's body has not come to an end. actix-http reads on for [`LINGER`], and
    /// closes.
    Lingering,
}

impl Progress {
    fn go(&self, stage: Stage) {
        self.stage.set(stage);
        self.turn.set(self.turn.get() + 1);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// What actix-http reads from and writes to.
pub(super) struct Connection {
    io: TcpStream,
    peer: SocketAddr,
    limits: Arc<Limits>,
    progress: Rc<Progress>,
    /// Which one of `progress` the next four speak of.
    turn: u64,
    stage: Stage,
    /// Bytes that were read in this turn.
    read: usize,
    /// Whether actix-http has had the time to make a request of them.
    is_parsed: bool,
    /// From the first byte on of a head that is not the connection's first: that one actix-http limits by itself, from the
    /// connection's beginning.
    deadline: Option<Pin<Box<Sleep>>>,
    refused: Option<Refused>,
}

/// Of a connection from which nothing more is taken. What it is refused with is sent when it is shut down, after all
/// answers.
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
        let place = limits.place(peer.ip())?;
        Ok(Self {
            io,
            peer,
            limits: Arc::clone(limits),
            progress: Rc::new(Progress { place: RefCell::new(place), ..Progress::default() }),
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

    /// For `on_connect_ext`: where [`hold`] finds the connection of a request.
    pub(super) fn introduce(&self, data: &mut Extensions) {
        data.insert(Rc::clone(&self.progress));
    }

    fn begin_turn(&mut self) {
        let (turn, stage) = (self.progress.turn.get(), self.progress.stage.get());
        if self.turn == turn {
            return;
        }
        // What was sent behind a request that has been answered now is a head that has begun.
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
                // It is no whole head, or there would be a request by now.
                self.refuse(HEAD_TOO_LARGE);
                return Poll::Ready(Ok(()));
            }
            // All of it may be a head and its body, of which actix-http makes a request once it has nothing to read.
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
            // Who sends so much behind a request waits for its answer.
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

/// Tells a request's connection how far the request is, and keeps its body in sight until the answer has been made.
/// The outermost middleware.
///
/// What nobody has read of a body by then has actix-http close the connection. If the body were dropped before, it would
/// go on reading a chunked one, and throw away what it reads, for as long as something comes.
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
        progress.place.take();
        progress.go(Stage::Answering { has_body });
    }
    let exchange = Rc::new(Exchange { progress, body });
    if has_body {
        // actix-http asks for an answer as soon as it has the head. What has come of the body with it is taken first, so that
        // an answer that needs none of it does not cost the connection.
        tokio::task::yield_now().await;
    }
    let response = match next.call(req).await {
        Ok(response) => response.map_body(|_, body| Held { body: body.boxed(), _exchange: exchange }),
        Err(mut error) => {
            error.add_response_mapper(move |response| {
                response.map_body(|_, body| BoxBody::new(Held { body, _exchange: Rc::clone(&exchange) }))
            });
            return Err(error);
        }
    };
    Ok(response)
}

/// A request's body that is read by its handler, and looked at after it.
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
    /// Whether all of the body has come, read or not.
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
        let stage = if self.has_whole_body() { Stage::Head } else { Stage::Lingering };
        if let Some(progress) = &self.progress {
            progress.go(stage);
        }
    }
}

/// The body of an answer.
pub(super) struct Held {
    body: BoxBody,
    /// Goes when actix-http has taken all of the body, or the connection is gone.
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
