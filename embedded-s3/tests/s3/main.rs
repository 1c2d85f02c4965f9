//! Stories about the embedded store, told by the AWS SDK and by plain HTTP with presigned URLs.
#![allow(clippy::unwrap_used)]

mod kit;

mod objects;
