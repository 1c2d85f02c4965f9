//! A session's history: one row for each thing that happened, in the transaction that did it, each tied to the one before.

pub mod chain;
mod record;
pub(crate) mod rows;
mod tombstone;

pub(crate) use chain::{Entry, Keys};
pub(crate) use record::{record, record_marking};
pub(crate) use tombstone::seal_of_tombstone;
