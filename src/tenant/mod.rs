//! Tenants, which are isolated from each other, and their brands, limits and usage.

mod brands;
mod bucket;
mod create;
mod known;
mod limit;
mod list;
pub mod rows;
pub mod usage;
mod within;

pub use brands::{brand_for, brands_of, list_brands, must_hold_all_brands};
pub use bucket::prepare_bucket;
pub use create::{Created, add_brands, create};
pub use known::{Known, exists};
pub use limit::{Limits, limit};
pub use list::{Standing, list, standing};
pub use rows::{Usage, buckets};
pub use within::{named_so, within};
