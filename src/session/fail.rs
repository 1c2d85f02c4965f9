use entity::SessionId;
use tracing::instrument;

use super::activity::refusal;
use super::discard::discard;
use super::{Change, Outcome, Session, find, transition};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Attempt, Result};
use crate::input::Reason;

/// Ends a session as FAILED `operator`, by order of the caller. A session that is already FAILED is returned unchanged.
///
/// The event keeps the reason. The store is cleared at once, best effort.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the caller may not see the session, [`crate::error::Error::IllegalTransition`] if it
/// is COMPLETED or CANCELLED.
#[instrument(name = "session.fail", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn fail(engine: &Engine, caller: &Caller, id: SessionId, reason: &Reason) -> Result<Session> {
    let session = find(engine, caller, id).await?;
    let change = Change::fail_by_hand(&caller.actor, reason.as_str());
    match transition(engine, &session, change, async |_, _| Ok(())).await? {
        Outcome::Moved(session) => {
            discard(engine, &session, &caller.actor).await;
            Ok(session)
        }
        Outcome::Already(session) => Ok(session),
        Outcome::Refused(session) | Outcome::GuardFailed(session) => Err(refusal(&session, Attempt::Fail)),
    }
}
