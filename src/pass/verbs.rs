use super::{Pass, Report, Run};
use crate::engine::Engine;
use crate::error::Result;
use crate::session;

/// Runs the verb of a pass.
pub(super) async fn run(engine: &Engine, pass: Pass, run: &Run) -> Result<Report> {
    match pass {
        Pass::DetectAbandoned => session::detect_abandoned(engine, run).await,
        Pass::Cleanup => session::cleanup(engine, run).await,
        Pass::Orphans => session::orphans(engine, run).await,
        Pass::Reconcile => session::reconcile(engine, run).await,
    }
}
