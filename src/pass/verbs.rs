use super::{Pass, Report, Run};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// The verb of each pass.
pub(super) async fn run(_engine: &Engine, pass: Pass, _run: &Run) -> Result<Report> {
    match pass {
        Pass::DetectAbandoned | Pass::Cleanup | Pass::Orphans | Pass::Reconcile => {
            Err(Error::Busy("not yet".to_owned()))
        }
    }
}
