//! The state table. Everything that knows which state may follow which is derived from [`Event::row`]: the judge, the
//! guarded UPDATE, the test of the database's own triggers, the model of the property test.

use std::fmt;

use entity::upload_session::Status::{Cancelled, Completed, Failed, Initiating, Uploading};
use entity::upload_session::{FailureReason, Status};

/// What can happen to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The store is ready to take the bytes.
    Open,
    /// The store holds every byte; the asset exists from here on.
    Complete,
    /// Somebody does not want it any more.
    Cancel,
    /// It cannot become an asset.
    Fail,
}

/// One row of the table: where an event may start, where it ends, and where it has nothing left to do.
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

/// Reads the table: pure, total, and the only judge there is.
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

/// The name on the wire.
pub const fn name(state: Status) -> &'static str {
    match state {
        Initiating => "INITIATING",
        Uploading => "UPLOADING",
        Completed => "COMPLETED",
        Failed => "FAILED",
        Cancelled => "CANCELLED",
    }
}

/// The name on the wire.
pub const fn reason_name(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Abandoned => "abandoned",
        FailureReason::Expired => "expired",
        FailureReason::StorageError => "storage_error",
        FailureReason::VerificationFailed => "verification_failed",
        FailureReason::Operator => "operator",
    }
}

/// The state that has this name.
pub fn named(text: &str) -> Option<Status> {
    [Initiating, Uploading, Completed, Failed, Cancelled].into_iter().find(|state| name(*state) == text)
}

/// Whether nothing can happen to a session any more.
pub const fn is_terminal(state: Status) -> bool {
    match state {
        Initiating | Uploading => false,
        Completed | Failed | Cancelled => true,
    }
}
