//! `storage/` against stores that are really there, against other signers, and against a store that fails on purpose.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod calls;
mod chain;
mod faults;
mod kit;
mod oracles;
mod proof;
mod urls;
