use entity::upload_session::UploadType;
use serde_json::json;

use super::discard::abort;
use super::{Change, Outcome, Session, location, transition};
use crate::engine::Engine;
use crate::error::Result;
use crate::event::{Effect, record_effect};

/// Opens an INITIATING session: a multipart one gets its upload from the store first.
///
/// Answers the session in whatever state it then is: another request may have opened, cancelled or failed it meanwhile.
/// Of two that open at once one is recorded, and the other aborts the upload that it made.
///
/// `again`: somebody tried before, and the answer that named the upload may have been lost; it is looked for by its key.
///
/// # Errors
/// The store's or the database's. The session is INITIATING then, and the same call goes on from there.
pub(super) async fn open(engine: &Engine, session: &Session, actor: &str, again: bool) -> Result<Session> {
    let upload_id = match session.upload_type {
        UploadType::Direct => None,
        UploadType::Multipart => Some(upload(engine, session, actor, again).await?),
    };
    let change = Change::open(actor, upload_id.as_deref());
    let outcome = transition(engine, session, change, async |_, _| Ok(())).await?;
    match outcome {
        Outcome::Moved(session) => Ok(session),
        Outcome::Already(session) | Outcome::Refused(session) | Outcome::GuardFailed(session) => {
            if let Some(mine) = upload_id.filter(|mine| session.multipart_upload_id.as_ref() != Some(mine)) {
                abort(engine, &session, actor, &mine).await;
            }
            Ok(session)
        }
    }
}

async fn upload(engine: &Engine, session: &Session, actor: &str, again: bool) -> Result<String> {
    let at = location(session);
    if again && let Some(earlier) = engine.storage.list_uploads(&at).await?.into_iter().next() {
        return Ok(earlier);
    }
    let opened = engine.storage.open_multipart(&at, &session.mime_type).await;
    record_effect(engine, session, actor, Effect::Open, json!({}), opened.as_ref().map(drop)).await;
    Ok(opened?)
}
