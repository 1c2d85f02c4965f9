//! What a completed session becomes.

mod find;
pub(crate) mod rows;

pub use find::find;

use entity::asset;

pub type Asset = asset::Model;
