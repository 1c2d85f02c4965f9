//! A session's history: one row for each thing that happened, in the transaction that did it, each tied to the one before.

pub mod chain;
mod record;
pub(crate) mod rows;

pub(crate) use chain::{Entry, Keys};
pub(crate) use record::record;
