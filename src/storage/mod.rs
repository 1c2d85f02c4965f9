//! What Quaymaster asks of an S3.

mod error;
mod key;

pub use error::{Error, Kind, Op};
pub use key::Location;
