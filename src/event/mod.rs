//! A session's history: one row for each thing that happened, in the transaction that did it.

pub(crate) mod rows;
