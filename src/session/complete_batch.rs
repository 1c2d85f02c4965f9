use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use entity::SessionId;
use futures_util::StreamExt as _;
use futures_util::stream;
use tracing::{debug, instrument};

use super::complete::{complete_intended, intend_all};
use super::{Completion, complete};
use crate::asset::Asset;
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};

/// What became of one session of a batch of completions.
pub struct CompletedItem {
    /// As the caller named it; `None` where that was no id.
    pub session: Option<SessionId>,
    /// The asset, and whether this call made it.
    pub result: Result<(Asset, bool)>,
}

/// Completes each session, each in its own transaction: one that fails takes no other with it.
///
/// Results come in the order of the sessions. One that was refused before this call stays refused in its place; one that
/// is named twice is completed once, and both results have its asset. At most `sessions.batch_concurrency` sessions are
/// worked on at once. Safe to repeat.
#[instrument(name = "session.complete_batch", skip_all, fields(tenant.id = %caller.tenant, sessions = sessions.len()))]
pub async fn complete_batch(
    engine: &Engine,
    caller: &Caller,
    sessions: Vec<(Option<SessionId>, Result<Completion>)>,
) -> Vec<CompletedItem> {
    let plain = sessions.iter().filter_map(|(session, completion)| {
        let completion = completion.as_ref().ok()?;
        session.filter(|_| completion.is_plain())
    });
    let plain: Vec<_> = plain.collect();
    let intended = intend_all(engine, caller, &plain).await.unwrap_or_else(|error| {
        // Each is told by its own attempt.
        debug!(error = with_causes(&error), "intents could not be stored together");
        HashMap::new()
    });
    let intended = Mutex::new(intended);
    let begun = |id| intended.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    stream::iter(sessions)
        .map(async |(session, completion)| CompletedItem {
            session,
            result: match (session, completion) {
                (Some(id), Ok(completion)) => match begun(id) {
                    Some(session) => complete_intended(engine, caller, session).await,
                    None => complete(engine, caller, id, &completion).await,
                },
                (None, Ok(_)) => Err(Error::NotFound),
                (_, Err(error)) => Err(error),
            },
        })
        .buffered(engine.settings.sessions.batch_concurrency)
        .collect()
        .await
}
