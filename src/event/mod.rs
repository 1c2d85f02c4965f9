//! A session's history: one row for each event, written in the transaction that caused it and chained to the event before.

mod effect;
pub(crate) mod pruned;
mod record;
pub mod rows;

pub(crate) use effect::{Effect, UNSEEN, record_done, record_effect};
pub(crate) use record::{Note, record, record_all, record_marking};
