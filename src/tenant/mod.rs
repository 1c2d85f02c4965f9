//! Tenants and their brands: who the walls are between.

mod brands;
mod create;
mod known;
pub(crate) mod rows;

pub use brands::{brand_for, brands_of, list_brands};
pub use create::{Created, create};
pub use known::{Known, exists};
pub use rows::{buckets, by_slug};
