//! When to believe a store that something is missing. A store may answer from a stale index, or answer wrongly: one negative
//! answer does not end a session.

use chrono::{DateTime, Utc};
use entity::upload_session::UploadType;

use super::sweep::grace;
use super::{Session, location, rows};
use crate::engine::Engine;
use crate::error::Error::NotFound;
use crate::error::Result;
use crate::event::{self, UNSEEN};
use crate::storage::{Error, Object, Op};

/// Succeeds only if a session's upload and object are both lost. The store has already reported each as missing once; a
/// list of uploads and a list of objects must agree.
///
/// `asked`: when an earlier call may have had the store assemble the object. Until [`grace`] after that, and without a time
/// limit once the store has reported that it did, the object may exist without being visible yet.
///
/// # Errors
/// [`crate::error::Error::Storage`] if the store fails, or if the loss is not certain. Then nothing has changed.
pub(super) async fn must_be_lost(engine: &Engine, session: &Session, asked: Option<DateTime<Utc>>) -> Result<()> {
    if asked.is_some_and(|asked| engine.clock.now() - asked < grace(engine)) {
        return Err(Error::unclear(Op::Head, "the object may have just been made and is not visible yet").into());
    }
    let conn = &engine.db.conn().of(session.tenant_id);
    let now = rows::find(conn, session.tenant_id, session.id).await?.ok_or(NotFound)?;
    if now.completing_at != session.completing_at {
        return Err(Error::unclear(Op::Head, "another request is having the object assembled").into());
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
        return Err(Error::unclear(Op::Head, "a list has the upload or object, but a lookup does not find it").into());
    }
    Ok(())
}

/// Returns the error for an object that the store has reported as made, and now reports as missing.
pub(super) fn unseen() -> Error {
    Error::unclear(Op::Head, "the object is not visible, although the store reported that it made it")
}

/// Whether the object is not the announced file: its size differs, or its checksum does if both sides have one.
pub(super) fn is_another(session: &Session, object: &Object) -> bool {
    let is_other_content = is_checked(session)
        && object.sha256.is_some_and(|sum| Some(hex::encode(sum).as_str()) != session.checksum_sha256.as_deref());
    object.size != session.file_size.unsigned_abs() || is_other_content
}

/// Whether a client's checksum can be compared with the store's. The store's checksum of a multipart object is not of its
/// bytes.
pub(super) fn is_checked(session: &Session) -> bool {
    session.upload_type == UploadType::Direct && session.checksum_sha256.is_some()
}

/// Reads the session's object from the store, with its checksum if that can be compared.
pub(super) async fn find_object(engine: &Engine, session: &Session) -> Result<Option<Object>, Error> {
    let at = location(session);
    if is_checked(session) { engine.storage.find_with_checksum(&at).await } else { engine.storage.find(&at).await }
}
