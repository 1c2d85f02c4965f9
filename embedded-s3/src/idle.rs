//! Timeouts for clients that send or receive nothing, or too slowly.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::Limits;
use crate::places::{Activity, Busy};

/// The error text by which `receive.rs` recognizes a slow sender.
pub const TOO_SLOW: &str = "the client sent nothing, or too little, for too long";

/// How much a refused request may still send, and for how long, before the connection is cut.
const DRAIN_MAX_BYTES: usize = 16 * 1024 * 1024;
const DRAIN_MAX_TIME: Duration = Duration::from_secs(10);

/// The time budget for waiting on a client.
///
/// The budget starts at `idle_timeout`. Waiting uses it up; each `rate_min` bytes transferred restore one second, up to
/// `idle_timeout`. So a silent client is cut after `idle_timeout`, a client at `rate_min` or faster is never cut, and a
/// body of `n` bytes ends after at most `idle_timeout` + `n` / `rate_min` of waiting. Time that the store itself takes
/// does not count.
struct TimeBudget {
    limit: Duration,
    rate_min: u32,
    left: Duration,
    /// Start of the current wait for the client.
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl TimeBudget {
    fn new(limits: &Limits) -> Self {
        let limit = limits.idle_timeout;
        Self { limit, rate_min: limits.rate_min, left: limit, since: None, timer: Box::pin(sleep(limit)) }
    }

    /// Called when no byte can be transferred. Ready once the budget is used up.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            self.timer.as_mut().reset(now + self.left);
        }
        self.timer.as_mut().poll(cx)
    }

    fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        // Without a minimum rate any byte restores the whole budget.
        let earned = Duration::try_from_secs_f64(bytes as f64 / f64::from(self.rate_min)).unwrap_or(self.limit);
        self.left = self.left.saturating_add(earned).min(self.limit);
    }
}

/// A request's body that fails if the client is too slow.
///
/// A body that is dropped before its end is drained for a while: a client that is cut off while sending sees a broken
/// connection instead of the answer that says why (nginx calls this `lingering_close`).
pub struct IdleBody {
    inner: Option<(Incoming, Busy)>,
    pace: TimeBudget,
    drain: bool,
}

impl IdleBody {
    /// `drain` is false for a client that waits for `100 Continue`: it reads the answer first.
    pub fn new(inner: Incoming, limits: &Limits, busy: Busy, drain: bool) -> Self {
        Self { inner: Some((inner, busy)), pace: TimeBudget::new(limits), drain }
    }
}

impl Body for IdleBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        let Some((inner, _)) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            match &frame {
                Some(Ok(frame)) => this.pace.moved(frame.data_ref().map_or(0, Bytes::len)),
                None | Some(Err(_)) => this.inner = None,
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        ready!(this.pace.poll_wait(cx));
        this.inner = None;
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, TOO_SLOW))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|(inner, _)| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(|(inner, _)| inner.size_hint()).unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for IdleBody {
    fn drop(&mut self) {
        if let Some(unread) = self.inner.take().filter(|(inner, _)| self.drain && !inner.is_end_stream()) {
            tokio::spawn(timeout(DRAIN_MAX_TIME, drain(unread)));
        }
    }
}

async fn drain((mut body, _busy): (Incoming, Busy)) {
    let mut bytes = 0;
    while bytes < DRAIN_MAX_BYTES {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
            None | Some(Err(_)) => return,
        }
    }
}

/// A connection that fails if the client is too slow to begin a request, to send its head, or to receive an answer.
///
/// While a request runs, this stream does not limit reads: a client that waits for a slow answer sends nothing, and
/// [`IdleBody`] limits the request's body.
pub struct IdleStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    reading: Reading,
    header_timeout: Duration,
    keep_alive: Duration,
    /// Limits the wait for the first byte of a request, or for its whole head.
    timer: Pin<Box<Sleep>>,
    pace: TimeBudget,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// A request runs.
    Request,
    /// The client may begin another one.
    Nothing,
    Head,
}

impl IdleStream {
    pub fn new(stream: TcpStream, limits: &Limits, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            // A client that connects is expected to send a request.
            reading: Reading::Head,
            header_timeout: limits.header_timeout,
            keep_alive: limits.keep_alive,
            timer: Box::pin(sleep(limits.header_timeout)),
            pace: TimeBudget::new(limits),
        }
    }

    fn go_on(&mut self, reading: Reading, limit: Duration) {
        self.reading = reading;
        self.timer.as_mut().reset(Instant::now() + limit);
    }

    /// Records whether a write succeeded or waits for the client. Fails if it has waited for too long.
    fn watch(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.set_writing(outcome.is_pending());
        if let Poll::Ready(written) = outcome {
            self.pace.moved(written.as_ref().copied().unwrap_or_default());
            return Poll::Ready(written);
        }
        ready!(self.pace.poll_wait(cx));
        Poll::Ready(Err(too_slow("the client received nothing, or too little, for too long")))
    }
}

fn too_slow(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl AsyncRead for IdleStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.activity.in_request() {
            this.reading = Reading::Request;
            return outcome;
        }
        if this.reading == Reading::Request {
            this.go_on(Reading::Nothing, this.keep_alive);
        }
        if this.reading == Reading::Nothing && buf.filled().len() > before {
            this.go_on(Reading::Head, this.header_timeout);
        }
        if outcome.is_pending() {
            ready!(this.timer.as_mut().poll(cx));
            return Poll::Ready(Err(too_slow("the client did not send a request, or its whole head, in time")));
        }
        outcome
    }
}

impl AsyncWrite for IdleStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
