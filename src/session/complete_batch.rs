use entity::SessionId;
use futures_util::StreamExt as _;
use futures_util::stream;
use tracing::instrument;

use super::{Completion, complete};
use crate::asset::Asset;
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Result};

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
    stream::iter(sessions)
        .map(async |(session, completion)| CompletedItem {
            session,
            result: match (session, completion) {
                (Some(id), Ok(completion)) => complete(engine, caller, id, &completion).await,
                (None, Ok(_)) => Err(Error::NotFound),
                (_, Err(error)) => Err(error),
            },
        })
        .buffered(engine.settings.sessions.batch_concurrency)
        .collect()
        .await
}
