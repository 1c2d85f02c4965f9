use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::hub::{Interest, Places, Reader, Seat};
use super::order::{self, PAGE};
use super::rows::{self, Placed, Span};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// A stream of events as they happen, in order and without a gap.
pub struct Stream {
    engine: Engine,
    interest: Interest,
    stage: Stage,
    /// Every event up to this place has been read, or is to be skipped.
    read: i64,
    /// Events read from the table and not handed out yet.
    page: VecDeque<Placed>,
    seat: Seat,
}

enum Stage {
    /// Reads earlier events from the table.
    Behind,
    /// Listens already; events up to this place must still be read from the table.
    Joined(i64, mpsc::Receiver<Arc<Placed>>),
    Live(mpsc::Receiver<Arc<Placed>>),
}

/// Returns an event's name on the wire; `None` for events that are recorded but not sent to readers.
pub fn public_name(event: &str) -> Option<&'static str> {
    match event {
        "initiate" => Some("upload.initiated"),
        "open" => Some("upload.opened"),
        "complete" => Some("upload.completed"),
        "fail" => Some("upload.failed"),
        "cancel" => Some("upload.cancelled"),
        "asset.ready" => Some("asset.ready"),
        "asset.failed" => Some("asset.failed"),
        _ => None,
    }
}

/// Begins to read events: with `after`, all that come after that place, from the table first; without it, only new ones.
///
/// A reader that leaves more than `feed.buffer` events unread while others arrive is cut off: its stream ends, and it may
/// begin again after the last place that it has seen.
///
/// # Errors
/// [`Error::TooManyReaders`] if this process already has `feed.readers_max` readers, or the caller's tenant or the caller
/// has its share of them.
pub async fn stream(engine: &Engine, interest: Interest, after: Option<i64>) -> Result<Stream> {
    let feed = &engine.settings.feed;
    let places =
        Places { all: feed.readers_max, per_tenant: feed.readers_per_tenant_max, per_user: feed.readers_per_user_max };
    let mut seat = engine.hub.seat(Reader::Stream, &interest.caller, places).ok_or(Error::TooManyReaders)?;
    let (read, stage) = match after {
        // A place that was never given is from before the database was restored to an earlier state.
        Some(after) => {
            let conn = engine.db.conn().of(interest.caller.tenant);
            (after.min(rows::last_position(&conn).await?), Stage::Behind)
        }
        None => {
            order::catch_up(engine).await?;
            let (published, from) = engine.hub.join(&mut seat, interest.clone(), feed.buffer);
            (published, Stage::Live(from))
        }
    };
    Ok(Stream { engine: engine.clone(), interest, stage, read, page: VecDeque::new(), seat })
}

/// Signals that an event has happened, for callers that then read the state themselves.
pub(crate) struct Waiter {
    from: mpsc::Receiver<Arc<Placed>>,
    _seat: Seat,
}

/// Listens for a short while, in a seat for long polls.
///
/// # Errors
/// [`Error::TooManyReaders`] if this process already has `feed.waits_max` long polls, or the caller's tenant or the caller
/// has its share of them.
pub(crate) fn listen(engine: &Engine, interest: Interest) -> Result<Waiter> {
    let feed = &engine.settings.feed;
    let places =
        Places { all: feed.waits_max, per_tenant: feed.waits_per_tenant_max, per_user: feed.waits_per_user_max };
    let mut seat = engine.hub.seat(Reader::Wait, &interest.caller, places).ok_or(Error::TooManyReaders)?;
    Ok(Waiter { from: engine.hub.join(&mut seat, interest, feed.buffer).1, _seat: seat })
}

impl Waiter {
    /// Waits for the next event. Returns `false` once the listener is cut off or the hub is closed.
    pub(crate) async fn hears(&mut self) -> bool {
        self.from.recv().await.is_some()
    }
}

impl Stream {
    /// Returns the place up to which all events have been handed out.
    pub fn read(&self) -> i64 {
        self.page.front().map_or(self.read, |next| next.position - 1)
    }

    /// Returns whether the next event must be read from the table with [`Stream::read_on`].
    pub fn is_behind(&self) -> bool {
        self.page.is_empty() && !matches!(self.stage, Stage::Live(_))
    }

    /// Reads one page of the table for a stream that is behind, or finds that the stream is behind no more.
    ///
    /// # Errors
    /// The table could not be read; the same call may be repeated.
    pub async fn read_on(&mut self) -> Result<()> {
        let until = match &self.stage {
            Stage::Behind => None,
            Stage::Joined(until, _) => Some(*until),
            Stage::Live(_) => return Ok(()),
        };
        if !self.read_page(until).await? {
            match until {
                None => {
                    let buffer = self.buffer();
                    let (published, from) = self.engine.hub.join(&mut self.seat, self.interest.clone(), buffer);
                    self.stage = Stage::Joined(published, from);
                }
                Some(until) => self.go_live(until),
            }
        }
        Ok(())
    }

    /// Returns the next event; `None` if the reader was cut off. May be dropped while it waits; nothing is lost then.
    ///
    /// # Errors
    /// The table could not be read; the same call may be repeated.
    pub async fn next(&mut self) -> Result<Option<Arc<Placed>>> {
        loop {
            if let Some(event) = self.page.pop_front() {
                return Ok(Some(Arc::new(event)));
            }
            match &mut self.stage {
                Stage::Behind | Stage::Joined(..) => self.read_on().await?,
                Stage::Live(from) => match from.recv().await {
                    Some(event) if event.position > self.read => {
                        self.read = event.position;
                        if public_name(&event.event).is_some() {
                            return Ok(Some(event));
                        }
                    }
                    Some(_) => {}
                    None => return Ok(None),
                },
            }
        }
    }

    fn buffer(&self) -> usize {
        self.engine.settings.feed.buffer
    }

    fn go_live(&mut self, until: i64) {
        self.read = self.read.max(until);
        self.stage = match std::mem::replace(&mut self.stage, Stage::Behind) {
            Stage::Joined(_, from) | Stage::Live(from) => Stage::Live(from),
            Stage::Behind => Stage::Behind,
        };
    }

    /// Reads one page of the table. The page counts all events of the tenant, so that a call stays short however few of
    /// them concern this reader. Returns `false` if there were no more.
    async fn read_page(&mut self, until: Option<i64>) -> Result<bool> {
        let tenant = self.interest.caller.tenant;
        let span = Span { tenant: Some(tenant), after: self.read, until, limit: PAGE };
        let page = rows::placed(&self.engine.db.count_conn().of(tenant), span).await?;
        let more = page.len() as u64 == PAGE;
        if let Some(last) = page.last() {
            self.read = last.position;
        }
        let told = |event: &Placed| self.interest.covers(event) && public_name(&event.event).is_some();
        self.page = page.into_iter().filter(told).collect();
        Ok(more)
    }
}
