//! A session's history: one row for each event, written in the transaction that caused it and chained to the event before.
//! Built on it: the order of all events, live readers, the audit, receipts.

pub mod chain;
mod effect;
mod feed;
mod hub;
mod line;
mod place;
pub(crate) mod pruned;
mod receipt;
mod record;
pub mod rows;
mod stream;
mod verify;

pub(crate) use chain::Entry;
pub use chain::Keys;
pub(crate) use effect::{Effect, UNSEEN, record_done, record_effect};
pub use feed::{BATCH, begin, run, sequence};
pub use hub::{Hub, Interest};
pub use receipt::{Doubt, PublicKey, PublicKeys, Receipt, public_keys, receipt, verify_receipt};
pub(crate) use record::{Note, record, record_all, record_marking};
pub use rows::Placed;
pub(crate) use stream::listen;
pub use stream::{Stream, public_name, stream};
pub use verify::{Finding, Scope, VerifyReport, verify};
