//! What each kind of job and each pass does: the tables that the workers and the runs of passes are given.

mod jobs;
mod passes;

pub use jobs::job;
pub use passes::pass;
