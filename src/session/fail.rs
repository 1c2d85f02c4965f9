use entity::SessionId;
use tracing::instrument;

use super::activity::refusal;
use super::discard::discard;
use super::{Change, Outcome, Session, find, transition};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::Result;

/// Ends a session as FAILED `operator`, by order of the caller. A session that is already FAILED is returned unchanged.
///
/// `note` is the reason, for people; the event keeps it. The store is cleared at once, best effort.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the caller may not see the session, [`crate::error::Error::IllegalTransition`] if it
/// is COMPLETED or CANCELLED.
#[instrument(name = "session.fail", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn fail(engine: &Engine, caller: &Caller, id: SessionId, note: &str) -> Result<Session> {
    let session = find(engine, caller, id).await?;
    let change = Change::fail_by_hand(&caller.actor, note);
    match transition(engine, &session, change, async |_, _| Ok(())).await? {
        Outcome::Moved(session) => {
            discard(engine, &session, &caller.actor).await;
            Ok(session)
        }
        Outcome::Already(session) => Ok(session),
        Outcome::Refused(session) | Outcome::GuardFailed(session) => Err(refusal(&session, "fail")),
    }
}
