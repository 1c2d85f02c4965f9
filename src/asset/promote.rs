use entity::asset::Status;
use entity::upload_session::Model as Session;
use entity::{JobKind, SessionId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{instrument, warn};

use super::{Asset, ready, rows};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::{self, Effect, Note, record_effect};
use crate::jobs::{self, NewJob};
use crate::storage::{self, ErrorKind, Location, Object, Op, Source};

pub(super) const ACTOR: &Actor = &Actor::System;
const CHANGED: &str = "the uploaded object was overwritten after it was completed";
const GONE: &str = "the uploaded object was gone before it was copied";
const WRONG_SIZE: &str = "the copy and the completed object differ in size";
const WRONG_CHECKSUM: &str = "the copy and the completed object differ in checksum";

/// The result of a promotion.
#[derive(Clone, Debug)]
pub enum Promoted {
    /// This call made the asset READY.
    Ready(Asset),
    /// This call made the asset FAILED: the completed object is gone or was replaced, or its copy differs.
    Failed(Asset),
    /// The asset was READY or FAILED before.
    Already(Asset),
}

/// The payload of a promotion job.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    tenant_id: TenantId,
    upload_session_id: SessionId,
}

/// The kinds of job that [`promotion`] returns.
pub(crate) const PROMOTIONS: [JobKind; 2] = [JobKind::Promote, JobKind::PromoteByParts];

/// Returns the job that promotes the asset of a completed session.
pub fn promotion(engine: &Engine, session: &Session) -> NewJob {
    let is_by_parts = session.file_size.unsigned_abs() > engine.storage.limits().max_copy_bytes;
    NewJob {
        kind: if is_by_parts { JobKind::PromoteByParts } else { JobKind::Promote },
        tenant: Some(session.tenant_id),
        payload: json!({ "tenant_id": session.tenant_id, "upload_session_id": session.id }),
        priority: 0,
        dedupe_key: Some(promotion_key(session.id)),
        run_at: engine.clock.now(),
    }
}

/// Returns the dedupe key of an asset's promotion, under which the queue has it once.
pub(crate) fn promotion_key(session: SessionId) -> String {
    format!("promote/{session}")
}

/// Returns the session whose asset the job promotes; `None` if the payload cannot be read.
pub(crate) fn promoted_by(job: &jobs::Job) -> Option<(TenantId, SessionId)> {
    let payload = Payload::deserialize(&job.payload).ok()?;
    Some((payload.tenant_id, payload.upload_session_id))
}

/// Runs a promotion job.
///
/// # Errors
/// As [`promote`]; [`Error::BadJob`] if the payload cannot be read.
pub async fn promote_job(engine: &Engine, job: &jobs::Job) -> Result<()> {
    let Payload { tenant_id, upload_session_id } =
        Payload::deserialize(&job.payload).map_err(|error| Error::BadJob(error.to_string()))?;
    attempt(engine, tenant_id, upload_session_id, job.attempts > 1).await.map(drop)
}

/// Copies the object of a COMPLETED session, exactly as it was completed, to the key that its asset is served from, and
/// makes the asset READY. The store itself makes the copy. The uploaded object is deleted afterwards, best effort.
///
/// The asset becomes FAILED if the uploaded object is gone or was replaced, or its copy has a different size or checksum,
/// and a second answer of the store agrees. The asset and the object then stay for an operator. The asset stays UPLOADED if
/// its key has a copy that may be the right one and cannot be proved. Safe to repeat, to run concurrently and to kill: an
/// existing copy is looked for first.
///
/// # Errors
/// [`Error::NotFound`] if there is no such session, or it has no asset. After [`Error::Storage`] and
/// [`Error::DbUnavailable`] the asset is UPLOADED, and the same call continues from there.
pub async fn promote(engine: &Engine, tenant: TenantId, session: SessionId) -> Result<Promoted> {
    attempt(engine, tenant, session, true).await
}

/// `again`: an earlier attempt may have made the copy without recording it: the answer was lost, or the process died.
#[instrument(name = "asset.promote", skip_all, fields(session.id = %session, tenant.id = %tenant))]
async fn attempt(engine: &Engine, tenant: TenantId, session: SessionId, again: bool) -> Result<Promoted> {
    let (session, asset) = rows::find_with_session(engine.db.conn(), tenant, session).await?.ok_or(Error::NotFound)?;
    let asset = asset.ok_or(Error::NotFound)?;
    match asset.status {
        Status::Uploaded => {}
        Status::Ready | Status::Failed => return Ok(Promoted::Already(asset)),
    }
    let to = Location::asset(&asset.bucket, tenant, asset.id);
    match fetch(engine, &session, &asset, &to, again).await? {
        Fetched::Whole => Box::pin(ready::make_ready(engine, session, asset, to)).await,
        Fetched::Lost(why) => fail(engine, &session, &asset, why).await,
    }
}

/// The state of the copy.
enum Fetched {
    Whole,
    /// No right copy exists, and none can be made.
    Lost(&'static str),
}

async fn fetch(engine: &Engine, session: &Session, asset: &Asset, to: &Location, again: bool) -> Result<Fetched> {
    let from = Location::upload(&session.bucket, session.id);
    if again
        && let Some(copy) = look(engine, asset, to).await?
        && is_proved(asset, &copy)
    {
        return Ok(Fetched::Whole);
    }
    let mut has_copied = false;
    let source = Source { at: &from, etag: &asset.etag, size: asset.file_size.unsigned_abs() };
    if engine.storage.copy_keeps_etag(&asset.etag) {
        match engine.storage.copy(source, to, &asset.mime_type).await {
            // The store's answer names the copy's ETag, so the copy need not be read.
            Ok(Some(etag)) if etag == asset.etag => return Ok(Fetched::Whole),
            // The copy may be of another object, or of the same one. Copy again, and check the source before and after.
            Ok(etag) => {
                has_copied = true;
                engine.storage.note_copy(&asset.etag, etag.as_deref());
            }
            Err(error) => return judge_refusal(engine, session, asset, to, error).await,
        }
    }
    // Not every store honours the ETag condition of a copy. Errors of this HEAD are ignored: the copy meets them again, and
    // its answer can tell a missing object from a missing bucket. One HEAD alone does not prove that the object was
    // replaced.
    let before = engine.storage.head(&from).await.ok();
    if !has_copied
        && before.as_ref().is_some_and(|object| object.etag != asset.etag)
        && let Some(fetched) = judge_existing_copy(engine, session, asset, to, "the source has another ETag").await?
    {
        return Ok(fetched);
    }
    match engine.storage.copy(source, to, &asset.mime_type).await {
        Ok(etag) => {
            engine.storage.note_copy(&asset.etag, etag.as_deref());
            judge_copy(engine, session, asset, before, to).await
        }
        Err(error) => judge_refusal(engine, session, asset, to, error).await,
    }
}

async fn judge_refusal(
    engine: &Engine,
    session: &Session,
    asset: &Asset,
    to: &Location,
    error: storage::Error,
) -> Result<Fetched> {
    if !matches!(error.kind, ErrorKind::Changed | ErrorKind::NotFound) {
        return Err(failed(engine, session, error).await);
    }
    // A concurrent promotion may have been first, and may have deleted the source.
    match judge_existing_copy(engine, session, asset, to, &error.code).await? {
        Some(fetched) => Ok(fetched),
        None => judge_source(engine, session, asset, error).await,
    }
}

/// Judges an existing copy when the source cannot be used; `None` if there is no copy or it differs. A copy that may be the
/// right one and cannot be proved is neither overwritten nor given up: a FAILED asset would leave it without an owner. Such
/// a copy exists after the database was restored to a time before the asset was READY.
async fn judge_existing_copy(
    engine: &Engine,
    session: &Session,
    asset: &Asset,
    to: &Location,
    why: &str,
) -> Result<Option<Fetched>> {
    match look(engine, asset, to).await? {
        Some(copy) if is_proved(asset, &copy) => Ok(Some(Fetched::Whole)),
        Some(copy) if difference(asset, &copy).is_none() => {
            let what = format!("{why}, and the existing copy cannot be verified");
            Err(in_doubt(engine, session, &what).await)
        }
        Some(_) | None => Ok(None),
    }
}

/// Judges a copy that the store reports as made: by its size, by its checksum or ETag, or else by the source, which must be
/// the same as before the copy.
async fn judge_copy(
    engine: &Engine,
    session: &Session,
    asset: &Asset,
    before: Option<Object>,
    to: &Location,
) -> Result<Fetched> {
    let mut copy = look(engine, asset, to).await?;
    if copy.as_ref().is_some_and(|copy| difference(asset, copy).is_some()) {
        copy = look(engine, asset, to).await?;
    }
    let Some(copy) = copy else { return Err(in_doubt(engine, session, "the copy is not there").await) };
    if let Some(why) = difference(asset, &copy) {
        return Ok(Fetched::Lost(why));
    }
    if is_proved(asset, &copy) {
        return Ok(Fetched::Whole);
    }
    let from = Location::upload(&session.bucket, session.id);
    let is_another = |object: &Object| object.etag != asset.etag;
    if let (Some(before), Some(after)) = (before, engine.storage.find(&from).await?) {
        // Compares the time too: an object that was replaced and put back has the same ETag.
        if after == before && !is_another(&after) {
            return Ok(Fetched::Whole);
        }
        // The store copied an object with another ETag, so it ignores the condition. A list must confirm that ETag.
        if is_another(&before)
            && is_another(&after)
            && engine.storage.listed_etag(&from).await?.is_some_and(|etag| etag != asset.etag)
        {
            return Ok(Fetched::Lost(CHANGED));
        }
    }
    Err(in_doubt(engine, session, "the source was not the same before and after the copy").await)
}

/// Judges the source after the store refused to copy it. A second answer must confirm the reason.
async fn judge_source(engine: &Engine, session: &Session, asset: &Asset, error: storage::Error) -> Result<Fetched> {
    let from = Location::upload(&session.bucket, session.id);
    match engine.storage.find(&from).await? {
        Some(object) if error.kind == ErrorKind::Changed && object.etag != asset.etag => Ok(Fetched::Lost(CHANGED)),
        None if engine.storage.is_gone(&from).await? => Ok(Fetched::Lost(GONE)),
        // The answers disagree: the source, or another object, is there after all.
        Some(_) | None => Err(in_doubt(engine, session, &format!("{}, but the source is there", error.code)).await),
    }
}

async fn in_doubt(engine: &Engine, session: &Session, what: &str) -> Error {
    failed(engine, session, storage::Error::unclear(Op::Copy, what)).await
}

async fn failed(engine: &Engine, session: &Session, error: storage::Error) -> Error {
    record_effect(engine, session, ACTOR, Effect::Copy, json!({}), Err(&error)).await;
    error.into()
}

/// Reads the object at the asset's own key, with its checksum if there is one to compare it with.
async fn look(engine: &Engine, asset: &Asset, to: &Location) -> Result<Option<Object>> {
    let found = if asset.checksum_verified {
        engine.storage.find_with_checksum(to).await
    } else {
        engine.storage.find(to).await
    };
    Ok(found?)
}

/// Returns how the copy differs from the completed object, if it does. A different ETag proves nothing: a store may derive
/// ETags from how an object was written or encrypted.
fn difference(asset: &Asset, copy: &Object) -> Option<&'static str> {
    if copy.size != asset.file_size.unsigned_abs() {
        return Some(WRONG_SIZE);
    }
    let has_same_content = has_same_checksum(asset, copy).unwrap_or(true);
    (!has_same_content).then_some(WRONG_CHECKSUM)
}

/// Whether the copy's own checksum or ETag proves that it equals the completed object.
fn is_proved(asset: &Asset, copy: &Object) -> bool {
    difference(asset, copy).is_none() && has_same_checksum(asset, copy).unwrap_or(copy.etag == asset.etag)
}

/// `None` if there are no two checksums to compare.
fn has_same_checksum(asset: &Asset, copy: &Object) -> Option<bool> {
    let completed = asset.checksum_sha256.as_deref().filter(|_| asset.checksum_verified)?;
    Some(hex::encode(copy.sha256?) == completed)
}

/// Makes the asset FAILED and records the event, in one transaction.
async fn fail(engine: &Engine, session: &Session, asset: &Asset, why: &'static str) -> Result<Promoted> {
    let now = engine.clock.now();
    let tx = engine.db.begin_for(asset.tenant_id).await?;
    let Some(asset) = rows::make_failed(&tx, asset, why).await? else {
        tx.rollback().await;
        return already(engine, asset).await;
    };
    let details = json!({ "asset_id": asset.id, "failure": why });
    event::record(engine, &tx, session, &Note { event: "asset.failed", actor: ACTOR, details, at: now }).await?;
    tx.commit().await?;
    warn!(asset.id = %asset.id, why, "an asset is FAILED and needs an operator");
    Ok(Promoted::Failed(asset))
}

/// Returns the asset as a concurrent call left it.
pub(super) async fn already(engine: &Engine, asset: &Asset) -> Result<Promoted> {
    let asset = rows::find(engine.db.conn(), asset.tenant_id, asset.id).await?;
    asset.map(Promoted::Already).ok_or(Error::NotFound)
}
