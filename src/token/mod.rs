//! Tokens: who a bearer is, and what they may do. `verify.rs` checks a token with the keys that are configured or that the
//! identity provider publishes (`jwks.rs`), `claims.rs` reads its claims, and `mint.rs` makes one.

mod claims;
mod jwks;
mod mint;
mod verify;

pub use mint::{Grant, mint};
pub use verify::{Identity, Rejection, StartError, Verifier, may_be_a_user};

#[cfg(test)]
mod tests;
