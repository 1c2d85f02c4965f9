//! The upload session, one verb in a file. In the order in which to read them:
//!
//! - `state.rs` is the table of states, and `transition.rs` the one statement that changes a state. `plan.rs` cuts a file into
//!   parts. `rows/` is the other SQL.
//! - A session's life: `initiate.rs` (many at once: `batch.rs`), `open.rs`, `part_urls.rs`, `resume.rs`, `activity.rs`,
//!   `complete.rs` (many at once: `complete_batch.rs`), `cancel.rs`, `discard.rs`, `receipt.rs`. `lost.rs` proves that an
//!   object is missing.
//! - What is asked about it: `list.rs`, `wait.rs`, and for operators `inspect.rs`, `fail.rs`, `within.rs`.
//! - The verbs of the passes, with `sweep.rs` as their common loop: `abandon.rs`, `cleanup.rs` (which also does
//!   `retention.rs` and `prune.rs`), `reconcile.rs` (which also does `repromote.rs`), `orphans/`.

// Every match on a state or an event names each variant, so that a new one cannot be missed.
#![warn(clippy::wildcard_enum_match_arm)]

mod abandon;
mod activity;
mod batch;
mod buckets;
mod cancel;
mod cleanup;
mod complete;
mod complete_batch;
mod discard;
mod fail;
mod initiate;
mod inspect;
mod list;
mod lost;
mod open;
mod orphans;
mod part_urls;
pub mod plan;
mod prune;
mod receipt;
mod reconcile;
mod repromote;
mod resume;
mod retention;
pub mod rows;
pub mod state;
mod sweep;
mod transition;
mod wait;
mod within;

pub use abandon::detect_abandoned;
pub use activity::touch;
pub use batch::{BatchFile, BatchItem, batch_reference, initiate_batch};
pub use buckets::{buckets, mark_buckets};
pub use cancel::cancel;
pub use cleanup::cleanup;
pub use complete::{Completion, complete};
pub use complete_batch::{BatchCompletion, CompletedItem, complete_batch};
pub use fail::fail;
pub use initiate::{Initiated, NewUpload, Openings, initiate, wrong_size};
pub use inspect::{Inspection, Stored, inspect};
pub use list::{BatchSummary, batch, events, find, list};
pub use orphans::orphans;
pub use part_urls::{PartUrl, PartUrls, Wanted, part_url, part_urls};
pub use receipt::{PublicKey, PublicKeys, Receipt, ReceiptError, public_keys, receipt, verify_receipt};
pub use reconcile::reconcile;
pub use resume::{Held, NoResume, Resume, resume};
pub use transition::{Change, Guard, Outcome, statement, transition};
pub use wait::{Goal, Waited, wait};
pub use within::within;

use entity::upload_session;

use crate::storage::Location;

pub type Session = upload_session::Model;

/// Returns the location to which this session's bytes are uploaded.
pub(crate) fn location(session: &Session) -> Location {
    Location::upload(&session.bucket, session.id)
}
