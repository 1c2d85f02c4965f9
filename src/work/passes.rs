use entity::Pass;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::engine::Engine;
use crate::error::Result;
use crate::pass::{Report, Run};
use crate::session;

/// Runs the verb of a pass.
pub fn pass<'a>(engine: &'a Engine, pass: Pass, run: &'a Run) -> BoxFuture<'a, Result<Report>> {
    match pass {
        Pass::DetectAbandoned => session::detect_abandoned(engine, run).boxed(),
        Pass::Cleanup => session::cleanup(engine, run).boxed(),
        Pass::Orphans => session::orphans(engine, run).boxed(),
        Pass::Reconcile => session::reconcile(engine, run).boxed(),
    }
}
