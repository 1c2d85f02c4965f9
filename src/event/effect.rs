use entity::upload_session;
use serde_json::{Value, json};
use tracing::warn;

use super::record::{Note, record, record_all};
use super::rows;
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Result, with_causes};
use crate::storage;

/// The failure of [`Effect::See`].
pub(crate) const UNSEEN: &str = "storage.object_unseen";

/// Something that is asked of the store for a session. Each is recorded by its name, or by its name and `_failed` with the
/// cause; of [`Effect::Open`], [`Effect::Complete`], [`Effect::See`] and [`Effect::Copy`] only the failure, because what they
/// achieve is a change of state with an event of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Making a multipart upload.
    Open,
    /// Assembling the object.
    Complete,
    /// Finding the object that the store has just said that it assembled.
    See,
    /// Copying the object to where its asset is served from.
    Copy,
    /// Removing all that a session left, once; the cleanup does it again and looks.
    Discard,
    /// Aborting an upload that another one took the place of.
    Abort,
    /// Removing what no session explains.
    RemoveOrphan,
}

impl Effect {
    const fn names(self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Open => (None, "storage.open_failed"),
            Self::Complete => (None, "storage.complete_failed"),
            Self::See => (None, UNSEEN),
            Self::Copy => (None, "storage.copy_failed"),
            Self::Discard => (Some("storage.discard"), "storage.discard_failed"),
            Self::Abort => (Some("storage.abort"), "storage.abort_failed"),
            Self::RemoveOrphan => (Some("storage.remove_orphan"), "storage.remove_orphan_failed"),
        }
    }
}

/// Records on a session what came of an effect; `about` is a JSON object with what the session does not say of it.
///
/// Best effort: an effect and its record cannot be one transaction, and the database may be away. A failure that is the
/// same as what was recorded last is not recorded again: a store that refuses for months would fill the history.
pub(crate) async fn record_effect(
    engine: &Engine,
    seen: &upload_session::Model,
    actor: &Actor,
    effect: Effect,
    about: Value,
    outcome: Result<(), &storage::Error>,
) {
    let (done, failed) = effect.names();
    let mut details = about;
    let event = match outcome {
        Ok(()) => done,
        Err(error) => {
            warn!(session.id = %seen.id, event = failed, %error, "the store did not do what was asked of it");
            details["cause"] = json!(error.to_string());
            Some(failed)
        }
    };
    let Some(event) = event else { return };
    let note = Note { event, actor, details, at: engine.clock.now() };
    if let Err(error) = commit(engine, seen, &note, outcome.is_err()).await {
        warn!(session.id = %seen.id, event, error = with_causes(&error), "an effect on the store could not be recorded");
    }
}

/// The same of many sessions, for each of which the store did what was asked.
pub(crate) async fn record_done(engine: &Engine, seen: &[upload_session::Model], actor: &Actor, effect: Effect) {
    let (Some(event), _) = effect.names() else { return };
    let at = engine.clock.now();
    let notes: Vec<_> = seen.iter().map(|seen| (seen, Note { event, actor, details: json!({}), at })).collect();
    let recorded = async {
        let tx = engine.db.begin().await?;
        record_all(engine, &tx, &notes).await?;
        tx.commit().await
    };
    if let Err(error) = recorded.await {
        let sessions = seen.len();
        warn!(sessions, event, error = with_causes(&error), "effects on the store could not be recorded");
    }
}

async fn commit(engine: &Engine, seen: &upload_session::Model, note: &Note<'_>, is_failure: bool) -> Result<()> {
    if is_failure {
        let last = rows::last_of(&engine.db.conn().of(seen.tenant_id), seen.tenant_id, seen.id).await?;
        if last.is_some_and(|last| last.event == note.event && last.details == note.details) {
            return Ok(());
        }
    }
    let tx = engine.db.begin_for(seen.tenant_id).await?;
    record(engine, &tx, seen, note).await?;
    tx.commit().await
}
