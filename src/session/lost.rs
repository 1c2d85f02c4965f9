//! What it takes to believe a store that something is not there. A store may answer from an index that is behind, or may
//! not mean what it says: one negative answer ends no session.

use chrono::{DateTime, Utc};
use entity::upload_session::UploadType;

use super::sweep::grace;
use super::{Session, location, rows};
use crate::engine::Engine;
use crate::error::Error::NotFound;
use crate::error::Result;
use crate::event::{self, UNSEEN};
use crate::storage::{Error, Object, Op};

/// Answers well only where a session's upload and object are both lost, after the store has said so once of each: a list of
/// uploads and a list of objects have to agree.
///
/// `asked`: when a call before this one may have had the store assemble the object. Until [`grace`] after that, and for
/// good once the store has said that it did, the object may be there without being seen yet.
///
/// # Errors
/// [`crate::error::Error::Storage`], also where that is not certain. Nothing has changed then.
pub(super) async fn must_be_lost(engine: &Engine, session: &Session, asked: Option<DateTime<Utc>>) -> Result<()> {
    if asked.is_some_and(|asked| engine.clock.now() - asked < grace(engine)) {
        return Err(Error::unclear(Op::Head, "the object may have been made a moment ago, and is not seen").into());
    }
    let conn = &engine.db.conn().of(session.tenant_id);
    let now = rows::find(conn, session.tenant_id, session.id).await?.ok_or(NotFound)?;
    if now.completing_at != session.completing_at {
        return Err(Error::unclear(Op::Head, "another request is having the object made").into());
    }
    let events = event::rows::of_session(conn, session.tenant_id, session.id).await?;
    if events.iter().any(|event| event.event == UNSEEN) {
        return Err(unseen().into());
    }
    let at = location(session);
    let is_listed = match &session.multipart_upload_id {
        Some(upload_id) => engine.storage.list_uploads(&at).await?.contains(upload_id),
        None => false,
    };
    if is_listed || !engine.storage.is_gone(&at).await? {
        return Err(Error::unclear(Op::Head, "a list has what a look at it has not").into());
    }
    Ok(())
}

/// The store has said that it made the object, and says now that there is none.
pub(super) fn unseen() -> Error {
    Error::unclear(Op::Head, "the object is not seen, though the store has said that it made it")
}

/// What a session with these bytes is not: of another size, or of another checksum where both sides have one.
pub(super) fn is_another(session: &Session, object: &Object) -> bool {
    let is_other_content = is_checked(session)
        && object.sha256.is_some_and(|sum| Some(hex::encode(sum).as_str()) != session.checksum_sha256.as_deref());
    object.size != session.file_size.unsigned_abs() || is_other_content
}

/// Whether a client's checksum can be compared with the store's: that of an object in parts is none of its bytes.
pub(super) fn is_checked(session: &Session) -> bool {
    session.upload_type == UploadType::Direct && session.checksum_sha256.is_some()
}

/// The session's object as the store tells of it, with its checksum where that can be compared.
pub(super) async fn find_object(engine: &Engine, session: &Session) -> Result<Option<Object>, Error> {
    let at = location(session);
    if is_checked(session) { engine.storage.find_with_checksum(&at).await } else { engine.storage.find(&at).await }
}
