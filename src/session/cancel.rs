use entity::SessionId;
use tracing::instrument;

use super::discard::discard;
use super::{Change, Outcome, Session, find, transition};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::Result;

/// Cancels a session, or returns it unchanged if it has already ended. Safe to repeat.
///
/// The store is cleared at once, best effort; a failure there does not fail the call.
///
/// # Errors
/// [`crate::error::Error::NotFound`] if the caller may not see the session.
#[instrument(name = "session.cancel", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn cancel(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Session> {
    let session = find(engine, caller, id).await?;
    match transition(engine, &session, Change::cancel(&caller.actor), async |_, _| Ok(())).await? {
        Outcome::Moved(session) => {
            discard(engine, &session, &caller.actor).await;
            Ok(session)
        }
        Outcome::Already(session) | Outcome::Refused(session) | Outcome::GuardFailed(session) => Ok(session),
    }
}
