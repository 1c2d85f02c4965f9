//! One order for the events of all sessions, and the live readers of it: `order.rs` gives each event its place after the
//! commit, `hub.rs` forwards it to the readers of this process, `stream.rs` is one reader, and `peers.rs` hears of the
//! events of other processes.

mod hub;
mod order;
mod peers;
pub(crate) mod rows;
mod stream;

pub use hub::{Hub, Interest};
pub use order::{BATCH, begin, run, sequence};
pub use rows::Placed;
pub(crate) use stream::listen;
pub use stream::{Stream, public_name, stream};
