use entity::SessionId;
use entity::upload_session::Status;
use tracing::instrument;

use super::{Session, find, rows, state};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Says that somebody still works on this session: it will not be taken for abandoned, and lives on.
///
/// # Errors
/// [`Error::IllegalTransition`] where it is not UPLOADING, [`Error::SessionExpired`] past its end.
#[instrument(name = "session.touch", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn touch(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Session> {
    let session = find(engine, caller, id).await?;
    must_be_uploading(engine, &session, "record activity on")?;
    match rows::touch(&engine.db, &session, &engine.settings.sessions, engine.clock.now()).await? {
        Some(session) => Ok(session),
        None => {
            let session = find(engine, caller, id).await?;
            must_be_uploading(engine, &session, "record activity on")?;
            Ok(session)
        }
    }
}

/// # Errors
/// [`Error::IllegalTransition`] where the session is not UPLOADING, [`Error::SessionExpired`] past its end.
pub(super) fn must_be_uploading(engine: &Engine, session: &Session, what: &str) -> Result<()> {
    if session.status != Status::Uploading {
        return Err(refusal(session, what));
    }
    if engine.clock.now() >= session.expires_at {
        return Err(Error::SessionExpired);
    }
    Ok(())
}

pub(super) fn refusal(session: &Session, what: &str) -> Error {
    let status = session.status;
    Error::IllegalTransition { status, what: format!("cannot {what} a session that is {}", state::name(status)) }
}
