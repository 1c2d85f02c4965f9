use entity::SessionId;
use entity::upload_session::Status;
use tracing::instrument;

use super::{Session, find, rows};
use crate::caller::Caller;
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::{Attempt, Error, Result};

/// Records a heartbeat: the session does not count as abandoned, and its expiry moves forward. Writes at most once in
/// `sessions.activity_write_secs`, however often it is called.
///
/// # Errors
/// [`Error::IllegalTransition`] if the session is not UPLOADING, [`Error::SessionExpired`] if it has expired.
#[instrument(name = "session.touch", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn touch(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Session> {
    let session = find(engine, caller, id).await?;
    must_be_uploading(engine, &session, Attempt::Touch)?;
    let session = touch_seldom(engine, session).await?;
    must_be_uploading(engine, &session, Attempt::Touch)?;
    Ok(session)
}

/// Records activity, unless that was done within the last `sessions.activity_write_secs`. Returns the session's current row,
/// because the session may have ended meanwhile.
pub(super) async fn touch_seldom(engine: &Engine, session: Session) -> Result<Session> {
    let now = engine.clock.now();
    let settings = &engine.settings.sessions;
    if now - session.last_activity_at >= seconds(settings.activity_write_secs)
        && let Some(touched) = rows::touch(&engine.db, &session, settings, now).await?
    {
        return Ok(touched);
    }
    rows::find(&engine.db.conn().of(session.tenant_id), session.tenant_id, session.id).await?.ok_or(Error::NotFound)
}

/// # Errors
/// [`Error::IllegalTransition`] if the session is not UPLOADING, [`Error::SessionExpired`] if it has expired.
pub(super) fn must_be_uploading(engine: &Engine, session: &Session, attempt: Attempt) -> Result<()> {
    if session.status != Status::Uploading {
        return Err(refusal(session, attempt));
    }
    if engine.clock.now() >= session.expires_at {
        return Err(Error::SessionExpired);
    }
    Ok(())
}

pub(super) fn refusal(session: &Session, attempt: Attempt) -> Error {
    Error::IllegalTransition { status: session.status, attempt }
}
