//! What Quaymaster asks of an S3: a few calls (`client.rs`), and URLs with which others send the bytes (`presign.rs`).

mod client;
mod credentials;
mod error;
mod key;
mod presign;
mod profile;

pub use client::{Activity, Object, Part, Storage};
pub use error::{Error, Kind, Op, StartError};
pub use key::{Location, UPLOADS};
pub use presign::{Presigned, PresignedParts, Signer};
pub use profile::Limits;
