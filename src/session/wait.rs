use std::time::Duration;

use entity::SessionId;
use entity::asset::Status as AssetStatus;
use entity::upload_session::Status;
use tokio::time::{Instant, sleep_until};
use tracing::instrument;

use super::state::is_terminal;
use super::{Session, find};
use crate::asset::{self, Asset};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Result;
use crate::event::{Interest, listen};

/// Looks again at least so often: the hub is told of a change a moment after it, but a word may be missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Nothing can happen to the session any more.
    Terminal,
    /// The asset is READY or FAILED, or there will never be one.
    Ready,
}

/// A session after a wait.
#[derive(Clone, Debug)]
pub struct Waited {
    pub session: Session,
    /// Of a COMPLETED session, for a caller who may see assets.
    pub asset: Option<Asset>,
    /// Whether it is as was waited for; otherwise the time was over first, or the server stops.
    pub satisfied: bool,
}

/// Waits until the session is so, at most `timeout`, and answers it as it then stands.
///
/// # Errors
/// [`crate::error::Error::NotFound`] where the caller does not see it; [`crate::error::Error::TooManyReaders`] where this
/// process has `feed.waits_max` long polls already, or the caller's tenant or the caller has its share of them.
#[instrument(name = "session.wait", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn wait(engine: &Engine, caller: &Caller, id: SessionId, goal: Goal, timeout: Duration) -> Result<Waited> {
    let deadline = Instant::now() + timeout;
    let interest = Interest { caller: caller.clone(), batch_reference: None, session: Some(id) };
    let mut changes = listen(engine, interest)?;
    // Not any more where it was cut off, which one session's events hardly can be: then there is only the clock.
    let mut hears = true;
    loop {
        let waited = look(engine, caller, id, goal).await?;
        if waited.satisfied || Instant::now() >= deadline {
            return Ok(waited);
        }
        tokio::select! {
            // In this order: a hub that is closed has cut everybody off, too.
            biased;
            () = engine.hub.closed() => return Ok(waited),
            heard = changes.hears(), if hears => hears = heard,
            () = sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)) => {}
        }
    }
}

async fn look(engine: &Engine, caller: &Caller, id: SessionId, goal: Goal) -> Result<Waited> {
    let session = find(engine, caller, id).await?;
    let asset = match session.status {
        Status::Completed => {
            asset::rows::find(&engine.db.conn().of(session.tenant_id), session.tenant_id, session.asset_id).await?
        }
        Status::Initiating | Status::Uploading | Status::Failed | Status::Cancelled => None,
    };
    let satisfied = match (goal, &asset) {
        (Goal::Terminal, _) => is_terminal(session.status),
        (Goal::Ready, Some(asset)) => match asset.status {
            AssetStatus::Uploaded => false,
            AssetStatus::Ready | AssetStatus::Failed => true,
        },
        (Goal::Ready, None) => is_terminal(session.status),
    };
    let asset = asset.filter(|_| caller.may(Permission::AssetsView));
    Ok(Waited { session, asset, satisfied })
}
