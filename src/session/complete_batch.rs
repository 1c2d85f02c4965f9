use std::collections::HashMap;

use entity::SessionId;
use futures_util::StreamExt as _;
use futures_util::stream;
use tracing::{debug, instrument};

use super::complete::{complete_together, intend_all};
use super::{Completion, complete};
use crate::asset::Asset;
use crate::caller::Caller;
use crate::database::piece;
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};
use crate::outage::Outage;

/// Intents that one transaction stores, for each completion that one does: an intent is one row.
const INTENDED_AT_ONCE: usize = 8;

/// One session of a batch as it was named: its id, where it is one, and how it completes, or what it was refused for.
pub type BatchCompletion = (Option<SessionId>, Result<Completion>);

/// What became of one session of a batch of completions.
pub struct CompletedItem {
    /// As the caller named it; `None` where that was no id.
    pub session: Option<SessionId>,
    /// The asset, and whether this call made it.
    pub result: Result<(Asset, bool)>,
}

/// Completes each session, as if each were asked for by itself: one that fails takes no other with it. Those that nothing
/// speaks against are recorded together, several in one transaction.
///
/// Results come in the order of the sessions. One that was refused before this call stays refused in its place; one that
/// is named twice is completed once, and both results have its asset. At most `sessions.batch_concurrency` sessions are
/// worked on at once. Safe to repeat.
#[instrument(name = "session.complete_batch", skip_all, fields(tenant.id = %caller.tenant, sessions = sessions.len()))]
pub async fn complete_batch(engine: &Engine, caller: &Caller, sessions: Vec<BatchCompletion>) -> Vec<CompletedItem> {
    let plain = sessions.iter().filter_map(|(session, completion)| {
        let completion = completion.as_ref().ok()?;
        session.filter(|_| completion.is_plain())
    });
    let mut plain: Vec<_> = plain.collect();
    let (mut done, outage) = (HashMap::new(), Outage::default());
    while let Some(some) = piece(&mut plain, INTENDED_AT_ONCE * engine.db.at_once(caller.tenant)) {
        match intend_all(engine, caller, &some).await {
            Ok(intended) => done.extend(complete_together(engine, caller, intended).await),
            // Each is told by its own attempt. What does not answer is not waited for once more for each piece.
            Err(error) => {
                debug!(error = with_causes(&error), "intents could not be stored together");
                outage.heed(&error);
                break;
            }
        }
    }
    let sessions = sessions.into_iter().map(|(session, completion)| {
        let done = session.and_then(|session| done.remove(&session));
        (session, completion, done)
    });
    stream::iter(sessions.collect::<Vec<_>>())
        .map(async |(session, completion, done)| CompletedItem {
            session,
            result: match (done, session, completion) {
                (Some(done), ..) => done,
                // Boxed: a stream moves each of its futures several times, and few of them come here.
                (None, Some(id), Ok(completion)) => {
                    outage.attempt(Box::pin(complete(engine, caller, id, &completion))).await
                }
                (None, None, Ok(_)) => Err(Error::NotFound),
                (None, _, Err(error)) => Err(error),
            },
        })
        .buffered(engine.settings.sessions.batch_concurrency)
        .collect()
        .await
}
