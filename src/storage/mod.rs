//! The access to an S3 store: the server's own calls (`client.rs`), and presigned URLs with which clients send the bytes
//! (`presign.rs`).

mod client;
mod clock;
mod copy;
mod credentials;
mod delete;
mod error;
mod key;
mod listing;
mod presign;
mod profile;
mod small;

pub use client::{Activity, Object, Part, Storage};
pub use copy::Source;
pub use error::{Error, ErrorKind, Op, StartError};
pub use key::{ASSETS, Location, OWNER, PROBE, TEMP, UPLOADS, asset_of, session_of};
pub use listing::{ListedObject, ListedUpload, Objects, Page, Uploads};
pub use presign::{Answered, PartSigner, Presigned, Signer};
pub use profile::Limits;
