//! Stories about the embedded store, with the AWS SDK and with plain HTTP and presigned URLs.
#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stdout)] // for measurements

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
