use entity::SessionId;
use entity::upload_session::{FailureReason, Status, UploadType};
use serde_json::{Value, json};
use tracing::instrument;

use super::activity::refusal;
use super::discard::discard;
use super::plan::part_range;
use super::rows::{self, Intent};
use super::{Change, Outcome, Session, find, location, transition};
use crate::asset::{self, Asset};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::{Effect, record_effect};
use crate::jobs;
use crate::storage::{Kind, Object, Part};

/// What a caller says at completion.
#[derive(Clone, Debug, Default)]
pub struct Completion {
    /// Number and ETag of every part, where the caller kept them; they must agree with the store's.
    pub parts: Option<Vec<(i64, String)>>,
    pub title: Option<String>,
    /// A JSON object; its members replace the session's of the same name.
    pub metadata: Option<Value>,
}

/// Makes the asset of a session whose bytes are all in the store; `true` where this call made it.
///
/// Trusts the store, never the caller. Safe to repeat and to race: one asset comes of it, and every caller gets that one.
///
/// # Errors
/// [`Error::UploadIncomplete`] and [`Error::PartsMismatch`] leave the session UPLOADING; so do [`Error::Storage`] and
/// [`Error::DbUnavailable`], after which the same call goes on. [`Error::IllegalTransition`] where it is CANCELLED, FAILED or
/// INITIATING, or became FAILED because the store holds something else, or nothing any more.
#[instrument(name = "session.complete", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn complete(
    engine: &Engine,
    caller: &Caller,
    id: SessionId,
    completion: &Completion,
) -> Result<(Asset, bool)> {
    let session = match intend(engine, caller, id, completion).await? {
        Intended::Go(session) => session,
        Intended::Done(session) => return Ok((asset_of(engine, &session).await?, false)),
    };
    match finish(engine, &session, &caller.user, completion.parts.as_deref()).await {
        Ok(Finished::Made(asset)) => Ok((asset, true)),
        Ok(Finished::Failed(session) | Finished::Ended(session)) => answer(engine, &session).await,
        // Bytes may be missing because somebody cancelled meanwhile: then the state is the answer.
        Err(error @ (Error::UploadIncomplete { .. } | Error::PartsMismatch(_))) => {
            let session = find(engine, caller, id).await?;
            if session.status == Status::Uploading { Err(error) } else { answer(engine, &session).await }
        }
        Err(error) => Err(error),
    }
}

/// The asset of a COMPLETED session; what any other state answers to a wish to complete.
async fn answer(engine: &Engine, session: &Session) -> Result<(Asset, bool)> {
    match session.status {
        Status::Completed => Ok((asset_of(engine, session).await?, false)),
        Status::Initiating | Status::Uploading | Status::Failed | Status::Cancelled => {
            Err(refusal(session, "complete"))
        }
    }
}

/// What became of a session that somebody wants completed.
#[derive(Debug)]
pub(super) enum Finished {
    /// This call made the asset.
    Made(Asset),
    /// This call failed it: the store holds something else, or nothing any more.
    Failed(Session),
    /// It had ended before, one way or another.
    Ended(Session),
}

/// Does what the stored intent asks for: looks at the store, has it assemble the object, records what came of it.
///
/// `said`: the parts as the caller has them, where they were named. What lacks bytes, or whose parts are not those that
/// were named, loses its intent: it has been answered, and nobody shall act on it later.
///
/// # Errors
/// [`Error::UploadIncomplete`] and [`Error::PartsMismatch`] leave the session UPLOADING; so do [`Error::Storage`] and
/// [`Error::DbUnavailable`], after which the same call goes on.
pub(super) async fn finish(
    engine: &Engine,
    session: &Session,
    actor: &str,
    said: Option<&[(i64, String)]>,
) -> Result<Finished> {
    let found = match session.upload_type {
        UploadType::Direct => direct(engine, session).await,
        UploadType::Multipart => multipart(engine, session, actor, said).await,
    };
    let object = match found {
        Ok(Some(object)) => object,
        // Upload and object are both gone: nothing can come of this session any more.
        Ok(None) => return fail(engine, actor, session, FailureReason::StorageError).await,
        Err(error @ (Error::UploadIncomplete { .. } | Error::PartsMismatch(_))) => {
            rows::withdraw(&engine.db, session).await?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if object.size != session.file_size.unsigned_abs() {
        return fail(engine, actor, session, FailureReason::VerificationFailed).await;
    }
    // A direct PUT carried the checksum in its signature: the store has refused other bytes.
    let verified = session.upload_type == UploadType::Direct && session.checksum_sha256.is_some();
    record(engine, actor, session, &object, verified).await
}

enum Intended {
    Go(Session),
    /// COMPLETED before.
    Done(Session),
}

/// Stores the intent, so that a crash from here on can be finished by whoever finds it.
async fn intend(engine: &Engine, caller: &Caller, id: SessionId, completion: &Completion) -> Result<Intended> {
    let session = find(engine, caller, id).await?;
    let intent =
        Intent { by: &caller.user, title: completion.title.as_deref(), metadata: completion.metadata.as_ref() };
    let session = if session.status == Status::Uploading {
        match rows::intend(&engine.db, &session, &intent, &engine.settings.sessions, engine.clock.now()).await? {
            Some(session) => return Ok(Intended::Go(session)),
            None => find(engine, caller, id).await?,
        }
    } else {
        session
    };
    match session.status {
        Status::Completed => Ok(Intended::Done(session)),
        Status::Uploading => Err(Error::SessionExpired),
        Status::Initiating | Status::Failed | Status::Cancelled => Err(refusal(&session, "complete")),
    }
}

/// A direct session's object, which may yet arrive where it is not there.
async fn direct(engine: &Engine, session: &Session) -> Result<Option<Object>> {
    match engine.storage.find(&location(session)).await? {
        Some(object) => Ok(Some(object)),
        None => Err(Error::UploadIncomplete { missing_parts: vec![], uploaded_bytes: 0 }),
    }
}

/// Has the store assemble the object, unless somebody had it do so before; `None` where it has neither the upload nor the
/// object.
async fn multipart(
    engine: &Engine,
    session: &Session,
    actor: &str,
    said: Option<&[(i64, String)]>,
) -> Result<Option<Object>> {
    let at = location(session);
    let upload_id = session.multipart_upload_id.as_deref().unwrap_or_default();
    match engine.storage.list_parts(&at, upload_id).await {
        Ok(held) => match check(session, held, said) {
            Ok(planned) => assemble(engine, session, actor, &planned).await?,
            Err(error @ Error::UploadIncomplete { .. }) => {
                return whole(engine, session).await?.map(Some).ok_or(error);
            }
            Err(error) => return Err(error),
        },
        Err(error) if error.kind == Kind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(engine.storage.find(&at).await?)
}

async fn assemble(engine: &Engine, session: &Session, actor: &str, planned: &[Part]) -> Result<()> {
    let upload_id = session.multipart_upload_id.as_deref().unwrap_or_default();
    match engine.storage.complete_multipart(&location(session), upload_id, planned).await {
        Ok(()) => Ok(()),
        // Another caller was quicker, or it was aborted: the object will tell.
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        Err(error) => {
            record_effect(engine, session, actor, Effect::Complete, json!({}), Err(&error)).await;
            Err(error.into())
        }
    }
}

/// The object, where it is there and has the session's size. Garage lists no parts, or some, of an upload that it is just
/// making an object of for another caller.
pub(super) async fn whole(engine: &Engine, session: &Session) -> Result<Option<Object>> {
    let found = engine.storage.find(&location(session)).await?;
    Ok(found.filter(|object| object.size == session.file_size.unsigned_abs()))
}

/// The planned parts, 1 to N, with the store's own ETags.
fn check(session: &Session, held: Vec<Part>, said: Option<&[(i64, String)]>) -> Result<Vec<Part>> {
    let (size, chunk) = (session.file_size.unsigned_abs(), session.chunk_size.unwrap_or(0).unsigned_abs());
    let total = session.total_parts.unwrap_or(0).unsigned_abs();
    let uploaded_bytes = held.iter().map(|part| part.size).sum();
    let planned: Vec<Part> = held
        .into_iter()
        .filter(|part| (1..=total).contains(&part.number) && part.size == part_range(part.number, size, chunk).1)
        .collect();
    if planned.len() != usize::try_from(total).unwrap_or(usize::MAX) {
        let mut there = planned.iter().map(|part| part.number).peekable();
        let missing_parts = (1..=total).filter(|number| there.next_if_eq(number).is_none()).collect();
        return Err(Error::UploadIncomplete { missing_parts, uploaded_bytes });
    }
    if let Some(said) = said {
        agree(&planned, said)?;
    }
    Ok(planned)
}

/// A caller's list must name every part once, with the store's ETag; order and quotes do not matter.
fn agree(planned: &[Part], said: &[(i64, String)]) -> Result<()> {
    let mut said: Vec<_> = said.iter().map(|(number, etag)| (*number, etag.trim_matches('"'))).collect();
    said.sort_unstable();
    let held = planned.iter().map(|part| (i64::from(part.number), part.etag.as_str()));
    if said.len() != planned.len() {
        let detail = format!("the list names {} parts, the store holds {}", said.len(), planned.len());
        return Err(Error::PartsMismatch(detail));
    }
    match held.zip(said).find(|(held, said)| held != said) {
        None => Ok(()),
        Some(((number, _), _)) => {
            Err(Error::PartsMismatch(format!("the list and the store disagree on part {number}")))
        }
    }
}

/// The last step: the state, the asset and the event in one transaction.
async fn record(engine: &Engine, actor: &str, session: &Session, object: &Object, verified: bool) -> Result<Finished> {
    let change = Change::complete(actor, &object.etag, verified);
    let mut made = None;
    let outcome = transition(engine, session, change, async |tx, session| {
        made = Some(asset::rows::insert(tx, session, &object.etag, verified).await?);
        jobs::enqueue(engine, tx, &asset::promotion(engine, session)).await.map(drop)
    })
    .await?;
    match (outcome, made) {
        (Outcome::Moved(_), Some(asset)) => Ok(Finished::Made(asset)),
        (Outcome::Moved(session) | Outcome::Already(session), _) => Ok(Finished::Ended(session)),
        (Outcome::Refused(session) | Outcome::GuardFailed(session), _) => {
            // It was cancelled or failed while we assembled the object, which nobody will ask for now.
            discard(engine, &session, actor).await;
            Ok(Finished::Ended(session))
        }
    }
}

/// Fails the session, unless somebody else was quicker with something else.
async fn fail(engine: &Engine, actor: &str, session: &Session, reason: FailureReason) -> Result<Finished> {
    let outcome = transition(engine, session, Change::fail(actor, reason), async |_, _| Ok(())).await?;
    match outcome {
        Outcome::Moved(session) => {
            discard(engine, &session, actor).await;
            Ok(Finished::Failed(session))
        }
        outcome @ (Outcome::Already(_) | Outcome::Refused(_) | Outcome::GuardFailed(_)) => {
            Ok(Finished::Ended(outcome.session()))
        }
    }
}

async fn asset_of(engine: &Engine, session: &Session) -> Result<Asset> {
    asset::rows::find(&engine.db.conn().of(session.tenant_id), session.tenant_id, session.asset_id)
        .await?
        .ok_or(Error::NotFound)
}
