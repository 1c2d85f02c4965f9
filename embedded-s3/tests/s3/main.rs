//! Stories about the embedded store, told by the AWS SDK and by plain HTTP with presigned URLs.
#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // what was measured

mod child;
mod kit;
mod sign;

mod buckets;
mod checksums;
mod copies;
mod cors;
mod crash;
mod keys;
mod limits;
mod listings;
mod listings_v1;
mod memory;
mod multipart;
mod objects;
mod places;
mod races;
mod ranges;
mod serving;
mod signatures;
