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

/// How many times more intents than completions one transaction stores: an intent changes only one row.
const INTENDED_AT_ONCE: usize = 8;

/// One requested session of a batch.
#[derive(Clone, Debug)]
pub struct BatchCompletion {
    /// `None` if the caller named no valid one.
    pub session: Option<SessionId>,
    /// `None` if the door has refused it.
    pub completion: Option<Completion>,
}

/// The result for one session of a batch of completions.
pub struct CompletedItem {
    /// As named by the caller; `None` if that was not an id.
    pub session: Option<SessionId>,
    /// The asset, and whether this call made it. For a session that the door has refused: [`Error::Invalid`] without fields.
    pub result: Result<(Asset, bool)>,
}

/// Completes each session, as if each were requested alone: a session that fails does not affect the others. Sessions
/// without a conflict are recorded together, several in one transaction.
///
/// Results are in the order of the sessions. A session that the door has refused stays refused in its place. A
/// session that is named twice is completed once, and both results have its asset. At most `sessions.batch_concurrency`
/// sessions are processed at once. Safe to repeat.
#[instrument(name = "session.complete_batch", skip_all, fields(tenant.id = %caller.tenant, sessions = sessions.len()))]
pub async fn complete_batch(engine: &Engine, caller: &Caller, sessions: Vec<BatchCompletion>) -> Vec<CompletedItem> {
    let plain = sessions.iter().filter_map(|BatchCompletion { session, completion }| {
        let completion = completion.as_ref()?;
        session.filter(|_| completion.is_plain())
    });
    let mut plain: Vec<_> = plain.collect();
    let (mut done, outage) = (HashMap::new(), Outage::default());
    while let Some(some) = piece(&mut plain, INTENDED_AT_ONCE * engine.db.at_once(caller.tenant)) {
        match intend_all(engine, caller, &some).await {
            Ok(intended) => done.extend(complete_together(engine, caller, intended).await),
            // Each session gets its answer from its own attempt. Further pieces would only wait for the outage again.
            Err(error) => {
                debug!(error = with_causes(&error), "intents could not be stored together");
                outage.note(&error);
                break;
            }
        }
    }
    let sessions = sessions.into_iter().map(|BatchCompletion { session, completion }| {
        let done = session.and_then(|session| done.remove(&session));
        (session, completion, done)
    });
    stream::iter(sessions.collect::<Vec<_>>())
        .map(async |(session, completion, done)| CompletedItem {
            session,
            result: match (done, session, completion) {
                (Some(done), ..) => done,
                // Boxed, because a stream moves each of its futures several times, and few of them take this path.
                (None, Some(id), Some(completion)) => {
                    outage.attempt(Box::pin(complete(engine, caller, id, &completion))).await
                }
                (None, None, Some(_)) => Err(Error::NotFound),
                (None, _, None) => Err(Error::Invalid(vec![])),
            },
        })
        .buffered(engine.settings.sessions.batch_concurrency)
        .collect()
        .await
}
