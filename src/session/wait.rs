use std::time::Duration;

use entity::SessionId;
use entity::asset::Status as AssetStatus;
use entity::upload_session::Status;
use tokio::time::{Instant, sleep_until};
use tracing::instrument;

use super::{Session, find};
use crate::asset::{self, Asset};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::{Interest, listen};

/// The poll interval. The hub announces a change a moment after it, but an announcement may be missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The session is in a final state.
    Terminal,
    /// The asset is READY or FAILED, or there will never be one.
    Ready,
}

/// A session after a wait.
#[derive(Clone, Debug)]
pub struct Waited {
    pub session: Session,
    /// The asset of a COMPLETED session, only for a caller who may view assets.
    pub asset: Option<Asset>,
    /// Whether the goal was reached; otherwise the timeout passed first, or the server is stopping.
    pub satisfied: bool,
}

/// Waits until the session reaches `goal`, for at most `timeout`, and returns its current state.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the caller may not see the session. [`crate::error::Error::TooManyReaders`] if this
/// process already has `feed.waits_max` long polls, or the caller or the caller's tenant already has its share of them.
#[instrument(name = "session.wait", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn wait(engine: &Engine, caller: &Caller, id: SessionId, goal: Goal, timeout: Duration) -> Result<Waited> {
    let deadline = Instant::now() + timeout;
    let interest = Interest { caller: caller.clone(), batch_reference: None, session: Some(id) };
    let mut changes = listen(engine, interest)?;
    // `false` once the hub has cut this reader off, which is unlikely for one session's events. Then only polling is left.
    let mut hears = true;
    loop {
        let waited = look(engine, caller, id, goal).await?;
        if waited.satisfied || Instant::now() >= deadline {
            return Ok(waited);
        }
        tokio::select! {
            // In this order, because a closed hub has cut all readers off, too.
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
        (Goal::Terminal, _) => session.status.is_terminal(),
        (Goal::Ready, Some(asset)) => match asset.status {
            AssetStatus::Uploaded => false,
            AssetStatus::Ready | AssetStatus::Failed => true,
        },
        (Goal::Ready, None) => session.status.is_terminal(),
    };
    let asset = asset.filter(|_| caller.may(Permission::AssetsView));
    Ok(Waited { session, asset, satisfied })
}
