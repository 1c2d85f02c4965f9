//! The asset: the result of a completed session. `promote.rs` copies it to the key that it is served from, `ready.rs` does the
//! steps after the copy, and `find.rs` and `download.rs` serve callers.

mod disposition;
mod download;
mod find;
mod promote;
mod ready;
pub mod rows;

pub use download::{Disposition, Download, download};
pub use find::find;
pub(crate) use promote::{PROMOTIONS, promoted_by, promotion_key};
pub use promote::{Promoted, promote, promote_job, promotion};
pub use ready::Steps;

use entity::asset;

pub type Asset = asset::Model;
