//! What a completed session becomes.

mod disposition;
mod download;
mod find;
mod promote;
pub mod rows;

pub use download::{Disposition, Download, download};
pub use find::find;
pub(crate) use promote::{PROMOTIONS, promoted_by, promotion_key};
pub use promote::{Promoted, promote, promote_job, promotion};

use entity::asset;

pub type Asset = asset::Model;
