//! What operators did to tenants, jobs and passes, in one chain over the whole deployment. What they did to a session is
//! in the session's own history.

mod act;
mod list;
mod record;
pub(crate) mod rows;

pub(crate) use act::{Act, ids, made};
pub use list::{Action, list};
pub(crate) use record::record;
