//! The state table. Everything that depends on the allowed transitions is derived from [`Event::row`]: [`judge`], the
//! guarded UPDATE, the test of the database's own triggers, and the model of the property test.

use std::fmt;

use entity::upload_session::Status;
use entity::upload_session::Status::{Cancelled, Completed, Failed, Initiating, Uploading};

/// What can happen to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The store is ready to take the bytes.
    Open,
    /// The store holds every byte; the asset exists from here on.
    Complete,
    /// A caller no longer wants the upload.
    Cancel,
    /// The session cannot become an asset.
    Fail,
}

/// One row of the table: the states in which an event may start, the state it leads to, and those in which it does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub from: &'static [Status],
    pub to: Status,
    pub done: &'static [Status],
}

/// What the table says about an event in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Move(Status),
    Already,
    Refused,
}

impl Event {
    pub const ALL: [Self; 4] = [Self::Open, Self::Complete, Self::Cancel, Self::Fail];

    pub const fn row(self) -> Row {
        match self {
            Self::Open => Row { from: &[Initiating], to: Uploading, done: &[Uploading] },
            Self::Complete => Row { from: &[Uploading], to: Completed, done: &[Completed] },
            Self::Cancel => {
                Row { from: &[Initiating, Uploading], to: Cancelled, done: &[Cancelled, Completed, Failed] }
            }
            Self::Fail => Row { from: &[Initiating, Uploading], to: Failed, done: &[Failed] },
        }
    }

    /// The name in `upload_event.event`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Cancel => "cancel",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads the table. Pure and total; nothing else decides what an event does in a state.
pub fn judge(state: Status, event: Event) -> Verdict {
    let row = event.row();
    if row.from.contains(&state) {
        Verdict::Move(row.to)
    } else if row.done.contains(&state) {
        Verdict::Already
    } else {
        Verdict::Refused
    }
}
