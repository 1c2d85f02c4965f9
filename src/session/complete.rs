use std::collections::HashMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use entity::SessionId;
use entity::upload_session::{FailureReason, Status, UploadType};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tracing::{debug, instrument};

use super::activity::refusal;
use super::discard::discard;
use super::lost::{find_object, is_another, is_checked, must_be_lost, unseen};
use super::plan::part_range;
use super::rows::{self, Intent, Replaces};
use super::transition::{self, transition};
use super::{Change, Outcome, Session, find, location};
use crate::asset::{self, Asset};
use crate::caller::{Actor, Caller};
use crate::database::piece;
use crate::engine::Engine;
use crate::error::{Attempt, Error, Mismatch, Result, with_causes};
use crate::event::{Effect, record_effect};
use crate::input::{ClientPart, Metadata, Title};
use crate::jobs;
use crate::outage::Outage;
use crate::storage::{self, ErrorKind, Object, Op, Part};

/// The caller's input at completion.
#[derive(Clone, Debug, Default)]
pub struct Completion {
    /// Number and ETag of every part, if the caller kept them; they must match the store's.
    pub parts: Option<Vec<ClientPart>>,
    /// If this or `metadata` is absent, the value of an earlier call that is still running stays.
    pub title: Option<Title>,
    /// Its members replace the session's of the same name.
    pub metadata: Option<Metadata>,
}

impl Completion {
    /// Whether the completion has no parts, no title and no metadata.
    pub(super) fn is_plain(&self) -> bool {
        self.parts.is_none() && self.title.is_none() && self.metadata.is_none()
    }
}

/// Creates the asset of a session whose bytes are all in the store; `true` if this call created it.
///
/// Trusts the store, never the caller. Safe to repeat and to call concurrently: one asset is created, and every caller gets
/// it. The intent of an earlier call stays unchanged while a later call is checked, and if the later one is refused.
///
/// # Errors
/// [`Error::UploadIncomplete`] and [`Error::PartsMismatch`] leave the session UPLOADING; so do [`Error::Storage`] and
/// [`Error::DbUnavailable`], after which the same call continues. [`Error::SessionExpired`] if the session has expired.
/// [`Error::IllegalTransition`] if it is CANCELLED, FAILED or INITIATING, or became FAILED because the store holds a
/// different object or nothing any more.
#[instrument(name = "session.complete", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn complete(
    engine: &Engine,
    caller: &Caller,
    id: SessionId,
    completion: &Completion,
) -> Result<(Asset, bool)> {
    answered(engine, caller, id, attempt(engine, caller, id, completion).await).await
}

/// Turns the outcome of an attempt into the caller's answer.
async fn answered(
    engine: &Engine,
    caller: &Caller,
    id: SessionId,
    finished: Result<Finished>,
) -> Result<(Asset, bool)> {
    match finished {
        Ok(Finished::Made(asset)) => Ok((asset, true)),
        Ok(Finished::Failed(session) | Finished::Ended(session)) => answer(engine, &session).await,
        // Bytes may be missing because the session was cancelled meanwhile: then the state is the answer.
        Err(error) if is_refusal(&error) || matches!(error, Error::Storage(_)) => {
            let session = find(engine, caller, id).await?;
            if session.status == Status::Uploading { Err(error) } else { answer(engine, &session).await }
        }
        Err(error) => Err(error),
    }
}

/// Returns the asset of a COMPLETED session, or the refusal to complete for any other state.
async fn answer(engine: &Engine, session: &Session) -> Result<(Asset, bool)> {
    match session.status {
        Status::Completed => Ok((asset_of(engine, session).await?, false)),
        Status::Initiating | Status::Uploading | Status::Failed | Status::Cancelled => {
            Err(refusal(session, Attempt::Complete))
        }
    }
}

/// The outcome of an attempt to complete a session.
#[derive(Debug)]
pub(super) enum Finished {
    /// This call made the asset.
    Made(Asset),
    /// This call made the session FAILED: the store holds a different object, or nothing any more.
    Failed(Session),
    /// The session had already ended, in any state.
    Ended(Session),
}

async fn attempt(engine: &Engine, caller: &Caller, id: SessionId, completion: &Completion) -> Result<Finished> {
    let mut seen = find(engine, caller, id).await?;
    let client_parts = completion.parts.as_deref().filter(|_| seen.upload_type == UploadType::Multipart);
    if seen.status == Status::Uploading && seen.completing_at.is_none() && client_parts.is_none() {
        // The intent comes first, so that after a crash a later call or a pass can finish the session.
        if let Some(session) = intend(engine, caller, &seen, completion, Replaces::Nothing).await? {
            return attempt_intended(engine, caller, &session).await;
        }
        seen = find(engine, caller, id).await?;
    }
    join(engine, caller, seen, completion, client_parts).await
}

/// Stores the intent to complete for each session that is UPLOADING, has not expired and has no intent, by one statement.
/// Returns those sessions. Their assets' titles and metadata stay as announced.
pub(super) async fn intend_all(engine: &Engine, caller: &Caller, ids: &[SessionId]) -> Result<Vec<Session>> {
    let conn = engine.db.conn().of(caller.tenant);
    let mut seen = rows::find_all(&conn, caller.tenant, ids).await?;
    seen.retain(|seen| caller.sees(seen) && seen.status == Status::Uploading && seen.completing_at.is_none());
    rows::intend_all(&engine.db, seen, caller, &engine.settings.sessions, engine.clock.now()).await
}

/// Completes sessions whose intents have just been stored, and returns the result of each. Sessions whose objects are as
/// announced are recorded together, several in one transaction. Each of the others is completed alone.
pub(super) async fn complete_together(
    engine: &Engine,
    caller: &Caller,
    intended: Vec<Session>,
) -> Vec<(SessionId, Result<(Asset, bool)>)> {
    let at_once = engine.settings.sessions.batch_concurrency;
    // Each lookup uses processor time, here and at the store.
    let at_once = if engine.db.active().is_beside(Some(caller.tenant)) { (at_once / 4).max(1) } else { at_once };
    let looked = stream::iter(intended).map(async |session| {
        let held = look(engine, &session, None).await;
        (session, held)
    });
    let looked: Vec<_> = looked.buffer_unordered(at_once).collect().await;
    let whole = looked.iter().filter_map(|(session, held)| match held {
        Ok(Held::Object(object)) if !is_another(session, object) => Some((session, object)),
        Ok(Held::Object(_) | Held::Parts(_) | Held::Nothing) | Err(_) => None,
    });
    let (mut whole, mut made, outage): (Vec<_>, _, _) = (whole.collect(), HashMap::new(), Outage::default());
    while let Some(some) = piece(&mut whole, engine.db.at_once(caller.tenant)) {
        let started = Instant::now();
        match record_together(engine, caller, &some).await {
            Ok(recorded) => made.extend(recorded),
            // A refused session must not fail the others: each gets its answer from its own attempt.
            Err(error) => {
                debug!(error = with_causes(&error), "could not complete sessions together; each is completed alone");
                outage.note(&error);
                if error.is_outage() {
                    break;
                }
            }
        }
        engine.db.rest(caller.tenant, started.elapsed()).await;
    }
    let looked = looked.into_iter().map(|(session, held)| (made.remove(&session.id), session, held));
    stream::iter(looked.collect::<Vec<_>>())
        .map(async |(made, session, held)| {
            let id = session.id;
            if let Some(asset) = made {
                return (id, Ok((asset, true)));
            }
            let attempt = async {
                let finished = attempt_held(engine, caller, &session, async { held }).await;
                answered(engine, caller, id, finished).await
            };
            (id, outage.attempt(attempt).await)
        })
        .buffer_unordered(at_once)
        .collect()
        .await
}

async fn record_together(
    engine: &Engine,
    caller: &Caller,
    whole: &[(&Session, &Object)],
) -> Result<HashMap<SessionId, Asset>> {
    if whole.len() < 2 {
        return Ok(HashMap::new());
    }
    let changes = whole.iter().map(|(session, object)| {
        (*session, Change::complete(&caller.actor, &object.etag, is_verified(session, object)))
    });
    let changes: Vec<_> = changes.collect();
    let tx = engine.db.begin_for(caller.tenant).await?;
    let moved = transition::complete_all(engine, &tx, &changes).await?;
    let assets = whole.iter().filter_map(|(seen, object)| {
        let session = moved.get(&seen.id)?;
        Some(asset::rows::asset(session, &object.etag, is_verified(session, object)))
    });
    let assets: Vec<_> = assets.collect();
    if !assets.is_empty() {
        asset::rows::insert(&tx, &assets).await?;
        let jobs: Vec<_> = moved.values().map(|session| asset::promotion(engine, session)).collect();
        jobs::enqueue_all(engine, &tx, &jobs).await?;
    }
    tx.commit().await?;
    Ok(assets.into_iter().map(|asset| (asset.upload_session_id, asset)).collect())
}

async fn attempt_intended(engine: &Engine, caller: &Caller, session: &Session) -> Result<Finished> {
    attempt_held(engine, caller, session, look(engine, session, None)).await
}

async fn attempt_held(
    engine: &Engine,
    caller: &Caller,
    session: &Session,
    held: impl Future<Output = Result<Held>>,
) -> Result<Finished> {
    withdrawn_if_refused(engine, session, async {
        let held = held.await?;
        Box::pin(finish_held(engine, session, &caller.actor, held, &Wish::default())).await
    })
    .await
}

/// Completes a session that another call may be completing, or with parts that may be wrong: checks first, and stores the
/// intent only if nothing contradicts it. A refusal changes only the time of the last activity.
async fn join(
    engine: &Engine,
    caller: &Caller,
    session: Session,
    completion: &Completion,
    client_parts: Option<&[ClientPart]>,
) -> Result<Finished> {
    if session.status != Status::Uploading {
        return Ok(Finished::Ended(session));
    }
    if engine.clock.now() >= session.expires_at {
        return Err(Error::SessionExpired);
    }
    let earlier = session.completing_at;
    let held = match look(engine, &session, client_parts).await {
        Ok(held) => held,
        Err(error) => {
            if is_refusal(&error) {
                rows::touch(&engine.db, &session, &engine.settings.sessions, engine.clock.now()).await?;
            }
            return Err(error);
        }
    };
    let has_own_intent = match &held {
        Held::Nothing => false,
        // A list of parts cannot be compared with an assembled object, which neither confirms nor contradicts this call.
        Held::Object(_) => client_parts.is_none() || earlier.is_none(),
        Held::Parts(_) => true,
    };
    let session = if has_own_intent {
        match intend(engine, caller, &session, completion, Replaces::Any).await? {
            Some(session) => session,
            None => return ended_or_expired(engine, caller, session.id).await,
        }
    } else {
        session
    };
    let wish = Wish { client_parts, earlier };
    let finished = Box::pin(finish_held(engine, &session, &caller.actor, held, &wish));
    if has_own_intent { withdrawn_if_refused(engine, &session, finished).await } else { finished.await }
}

async fn intend(
    engine: &Engine,
    caller: &Caller,
    session: &Session,
    completion: &Completion,
    replaces: Replaces,
) -> Result<Option<Session>> {
    let intent = Intent {
        by: caller.user(),
        title: completion.title.as_ref(),
        metadata: completion.metadata.as_ref(),
        replaces,
    };
    rows::intend(&engine.db, session, &intent, &engine.settings.sessions, engine.clock.now()).await
}

async fn ended_or_expired(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Finished> {
    let session = find(engine, caller, id).await?;
    if session.status == Status::Uploading { Err(Error::SessionExpired) } else { Ok(Finished::Ended(session)) }
}

const fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::UploadIncomplete { .. } | Error::PartsMismatch(_))
}

/// Withdraws the session's intent if the attempt was refused, so that no pass acts on it later. Leaves an intent that has
/// replaced it.
async fn withdrawn_if_refused(
    engine: &Engine,
    session: &Session,
    finished: impl Future<Output = Result<Finished>>,
) -> Result<Finished> {
    let finished = finished.await;
    if finished.as_ref().is_err_and(is_refusal) {
        rows::withdraw(&engine.db, session).await?;
    }
    finished
}

/// Carries out the stored intent: checks the store, has it assemble the object, and records the outcome.
///
/// A session that lacks bytes keeps its intent: no caller has been refused, and one list of parts may be incomplete.
///
/// # Errors
/// [`Error::UploadIncomplete`] leaves the session UPLOADING; so do [`Error::Storage`] and [`Error::DbUnavailable`], after
/// which the same call continues.
pub(super) async fn finish(engine: &Engine, session: &Session, actor: &Actor) -> Result<Finished> {
    let finished = async {
        let held = look(engine, session, None).await?;
        let wish = Wish { client_parts: None, earlier: session.completing_at };
        Box::pin(finish_held(engine, session, actor, held, &wish)).await
    }
    .await;
    match finished {
        Err(error @ Error::Storage(_)) => ended(engine, session).await?.map(Finished::Ended).ok_or(error),
        finished => finished,
    }
}

/// Returns the current session if it has ended meanwhile: that explains why something is missing.
async fn ended(engine: &Engine, session: &Session) -> Result<Option<Session>> {
    let now = rows::find(&engine.db.conn().of(session.tenant_id), session.tenant_id, session.id).await?;
    Ok(now.filter(|now| now.status != Status::Uploading))
}

/// What the store holds for a session.
enum Held {
    /// All parts of the object to assemble.
    Parts(Vec<Part>),
    Object(Object),
    /// Neither the upload nor the object; each was looked up once.
    Nothing,
}

/// Reads what the store holds, and refuses missing bytes and a mismatch with the client's list. Changes nothing.
async fn look(engine: &Engine, session: &Session, client_parts: Option<&[ClientPart]>) -> Result<Held> {
    if session.upload_type == UploadType::Direct {
        return match find_object(engine, session).await? {
            Some(object) => Ok(Held::Object(object)),
            // The bytes may still arrive.
            None if engine.storage.is_gone(&location(session)).await? => {
                Err(Error::UploadIncomplete { missing_parts: vec![], uploaded_bytes: 0 })
            }
            None => Err(storage::Error::unclear(Op::Head, "a list has the object, but HEAD does not find it").into()),
        };
    }
    match engine.storage.list_parts(&location(session), upload_id(session)).await {
        Ok(parts) => match check(session, parts, client_parts) {
            Ok(planned) => Ok(Held::Parts(planned)),
            Err(error @ Error::UploadIncomplete { .. }) => whole(engine, session).await?.map(Held::Object).ok_or(error),
            Err(error) => Err(error),
        },
        Err(error) if error.kind == ErrorKind::NotFound => {
            Ok(find_object(engine, session).await?.map_or(Held::Nothing, Held::Object))
        }
        Err(error) => Err(error.into()),
    }
}

/// What is known about a session to complete, in addition to the store's answers.
#[derive(Clone, Copy, Debug, Default)]
struct Wish<'a> {
    client_parts: Option<&'a [ClientPart]>,
    /// When an earlier call asked for the object to be assembled.
    earlier: Option<DateTime<Utc>>,
}

async fn finish_held(
    engine: &Engine,
    session: &Session,
    actor: &Actor,
    held: Held,
    wish: &Wish<'_>,
) -> Result<Finished> {
    let object = match held {
        Held::Object(object) => object,
        Held::Parts(planned) => assemble(engine, session, actor, planned, wish.client_parts).await?,
        Held::Nothing => {
            must_be_lost(engine, session, wish.earlier).await?;
            return fail(engine, actor, session, FailureReason::StorageError).await;
        }
    };
    let object = if is_another(session, &object) { look_again(engine, session).await? } else { object };
    if is_another(session, &object) {
        return fail(engine, actor, session, FailureReason::VerificationFailed).await;
    }
    record(engine, actor, session, &object).await
}

/// Reads the object a second time, after it was found to differ from the announced file.
pub(super) async fn look_again(engine: &Engine, session: &Session) -> Result<Object> {
    Ok(find_object(engine, session).await?.ok_or_else(unseen)?)
}

/// Has the store assemble the object.
async fn assemble(
    engine: &Engine,
    session: &Session,
    actor: &Actor,
    mut planned: Vec<Part>,
    client_parts: Option<&[ClientPart]>,
) -> Result<Object> {
    let at = location(session);
    let mut assembled = engine.storage.complete_multipart(&at, upload_id(session), &planned).await;
    if assembled.as_ref().is_err_and(is_invalid_part) {
        // A part may have been sent again since the parts were listed.
        let held = engine.storage.list_parts(&at, upload_id(session)).await?;
        planned = check(session, held, client_parts)?;
        assembled = engine.storage.complete_multipart(&at, upload_id(session), &planned).await;
    }
    match assembled {
        Ok(()) => {
            if let Some(object) = find_object(engine, session).await? {
                return Ok(object);
            }
            if ended(engine, session).await?.is_some() {
                return Err(unseen().into()); // the call that ended the session has removed the object, too
            }
            record_effect(engine, session, actor, Effect::See, json!({}), Err(&unseen())).await;
            Err(unseen().into())
        }
        // Another caller completed the upload, or it was aborted: the object tells which, if not now then later.
        Err(error) if error.kind == ErrorKind::NotFound => Ok(find_object(engine, session).await?.ok_or(error)?),
        Err(error) => {
            record_effect(engine, session, actor, Effect::Complete, json!({}), Err(&error)).await;
            if is_invalid_part(&error) {
                // The store does not say which part is invalid: all of them must be sent again.
                let uploaded_bytes = planned.iter().map(|part| part.size).sum();
                let missing_parts = planned.iter().map(|part| part.number).collect();
                return Err(Error::UploadIncomplete { missing_parts, uploaded_bytes });
            }
            Err(error.into())
        }
    }
}

fn is_invalid_part(error: &storage::Error) -> bool {
    error.code == "InvalidPart"
}

fn upload_id(session: &Session) -> &str {
    session.multipart_upload_id.as_deref().unwrap_or_default()
}

/// Returns the object if it exists and has the session's size. While Garage assembles the object for another caller, it
/// lists only some of the parts, or none.
pub(super) async fn whole(engine: &Engine, session: &Session) -> Result<Option<Object>> {
    let found = engine.storage.find(&location(session)).await?;
    Ok(found.filter(|object| object.size == session.file_size.unsigned_abs()))
}

/// Returns the planned parts, 1 to N, with the store's own ETags.
fn check(session: &Session, held: Vec<Part>, client_parts: Option<&[ClientPart]>) -> Result<Vec<Part>> {
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
    if let Some(client_parts) = client_parts {
        agree(&planned, client_parts)?;
    }
    Ok(planned)
}

/// A caller's list must name every part once, with the store's ETag; order and quotes do not matter.
fn agree(planned: &[Part], client_parts: &[ClientPart]) -> Result<()> {
    let mut named: Vec<_> =
        client_parts.iter().map(|part| (part.number, part.etag.as_str().trim_matches('"'))).collect();
    named.sort_unstable();
    let held = planned.iter().map(|part| (i64::from(part.number), part.etag.as_str()));
    if named.len() != planned.len() {
        return Err(Error::PartsMismatch(Mismatch::Count { named: named.len(), held: planned.len() }));
    }
    match held.zip(named).find(|(held, named)| held != named) {
        None => Ok(()),
        Some(((number, _), _)) => Err(Error::PartsMismatch(Mismatch::Part(number))),
    }
}

/// Whether the store has compared the checksum. Only one that it returns counts: some stores accept the header with any
/// bytes.
fn is_verified(session: &Session, object: &Object) -> bool {
    is_checked(session) && object.sha256.is_some()
}

/// The last step: writes the state, the event, the asset and its promotion job in one transaction.
async fn record(engine: &Engine, actor: &Actor, session: &Session, object: &Object) -> Result<Finished> {
    let verified = is_verified(session, object);
    let change = Change::complete(actor, &object.etag, verified);
    let mut made = None;
    let outcome = transition(engine, session, change, async |tx, session| {
        let asset = asset::rows::asset(session, &object.etag, verified);
        asset::rows::insert(tx, std::slice::from_ref(&asset)).await?;
        made = Some(asset);
        jobs::enqueue(engine, tx, &asset::promotion(engine, session)).await.map(drop)
    })
    .await?;
    match (outcome, made) {
        (Outcome::Moved(_), Some(asset)) => Ok(Finished::Made(asset)),
        (Outcome::Moved(session) | Outcome::Already(session), _) => Ok(Finished::Ended(session)),
        (Outcome::Refused(session) | Outcome::GuardFailed(session), _) => {
            // The session was cancelled or failed while the object was assembled, so nobody needs the object.
            discard(engine, &session, actor).await;
            Ok(Finished::Ended(session))
        }
    }
}

/// Fails the session, unless another call ended it first. The store's data is left to the cleanup, because only the store's
/// answers say that the session cannot complete.
async fn fail(engine: &Engine, actor: &Actor, session: &Session, reason: FailureReason) -> Result<Finished> {
    let outcome = transition(engine, session, Change::fail(actor, reason), async |_, _| Ok(())).await?;
    match outcome {
        Outcome::Moved(session) => Ok(Finished::Failed(session)),
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
