use entity::upload_session;
use serde_json::{Value, json};
use tracing::warn;

use super::record::{Note, record, record_all};
use super::rows;
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Result, with_causes};
use crate::storage;

/// The event name of a failed [`Effect::See`].
pub(crate) const UNSEEN: &str = "storage.object_unseen";

/// An operation on the store for a session. A success is recorded under the operation's name; a failure under that name and
/// `_failed` (for [`Effect::See`] under [`UNSEEN`]), with the cause. Of [`Effect::Open`], [`Effect::Complete`],
/// [`Effect::See`] and [`Effect::Copy`] only failures are recorded: a success is a state change with an event of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Opens a multipart upload.
    Open,
    /// Assembles the object.
    Complete,
    /// Looks for the object that the store has just reported as assembled.
    See,
    /// Copies the object to where its asset is served from.
    Copy,
    /// Removes everything that a session left in the store, once. The cleanup repeats it and verifies it.
    Discard,
    /// Aborts an upload that another one has replaced.
    Abort,
    /// Removes an object or an upload that no session needs.
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

/// Records the outcome of an effect on a session; `about` is a JSON object with details that the session's row lacks.
///
/// Best effort: an effect and its record cannot share a transaction, and the database may be unavailable. A failure that
/// equals the last recorded event is not recorded again: a store that refuses for months would fill the history.
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
            warn!(session.id = %seen.id, event = failed, %error, "a store operation failed");
            details["cause"] = json!(error.to_string());
            Some(failed)
        }
    };
    let Some(event) = event else { return };
    let note = Note { event, actor, details, at: engine.clock.now() };
    if let Err(error) = commit(engine, seen, &note, outcome.is_err()).await {
        warn!(session.id = %seen.id, event, error = with_causes(&error), "a store operation could not be recorded");
    }
}

/// Records an effect that succeeded for each of many sessions, in one transaction. Best effort too.
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
        warn!(sessions, event, error = with_causes(&error), "store operations could not be recorded");
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
