use entity::asset::Status;
use entity::{SessionId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{instrument, warn};

use super::{Asset, ready, rows};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};
use crate::event::{self, Effect, Note, record_effect};
use crate::jobs::{self, Kind as Job, NewJob};
use crate::session::{Session, location};
use crate::storage::{self, Kind, Location, Object, Op, Source};

pub(super) const ACTOR: &Actor = &Actor::System;
const CHANGED: &str = "the uploaded object was overwritten after it was completed";
const GONE: &str = "the uploaded object was gone before it was copied";
const CUT: &str = "the copy has another size than what was completed";
const OTHER: &str = "the copy has another checksum than what was completed";

/// What became of an asset.
#[derive(Clone, Debug)]
pub enum Promoted {
    /// It is READY by this call.
    Ready(Asset),
    /// It is FAILED by this call: what was completed is not there any more.
    Failed(Asset),
    /// It was READY or FAILED before.
    Already(Asset),
}

/// What a job to promote holds.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    tenant_id: TenantId,
    upload_session_id: SessionId,
}

/// The kinds of job that [`promotion`] makes.
pub(crate) const PROMOTIONS: [Job; 2] = [Job::Promote, Job::PromoteByParts];

/// The job to promote the asset of a session that was just completed.
pub fn promotion(engine: &Engine, session: &Session) -> NewJob {
    let is_by_parts = session.file_size.unsigned_abs() > engine.storage.limits().max_copy_bytes;
    NewJob {
        kind: if is_by_parts { Job::PromoteByParts } else { Job::Promote },
        tenant: Some(session.tenant_id),
        payload: json!({ "tenant_id": session.tenant_id, "upload_session_id": session.id }),
        priority: 0,
        dedupe_key: Some(promotion_key(session.id)),
        run_at: engine.clock.now(),
    }
}

/// Under which an asset's promotion is in the queue once.
pub(crate) fn promotion_key(session: SessionId) -> String {
    format!("promote/{session}")
}

/// Whose asset such a job is to promote; `None` for a payload that is none of ours.
pub(crate) fn promoted_by(job: &jobs::Job) -> Option<(TenantId, SessionId)> {
    let payload = Payload::deserialize(&job.payload).ok()?;
    Some((payload.tenant_id, payload.upload_session_id))
}

/// Does such a job.
///
/// # Errors
/// As [`promote`]; [`Error::Invalid`] for a payload that is none of ours.
pub async fn promote_job(engine: &Engine, job: &jobs::Job) -> Result<()> {
    let Payload { tenant_id, upload_session_id } = Payload::deserialize(&job.payload)
        .map_err(|error| Error::Invalid(vec![FieldError::new("", "invalid-format", error.to_string())]))?;
    attempt(engine, tenant_id, upload_session_id, job.attempts > 1).await.map(drop)
}

/// Copies the object of a COMPLETED session, exactly as it was completed, to where its asset is served from, and makes
/// the asset READY. The store copies by itself. The uploaded object is deleted after that, best effort.
///
/// Where the uploaded object is gone or is another one, or its copy has another size or checksum, by different answers of
/// the store, the asset becomes FAILED: it stays for an operator, and so does the object. It stays UPLOADED where a copy that
/// may be the right one stands at its place, and cannot be proved. Safe to repeat, to race and to kill: the copy is looked for
/// before it is made.
///
/// # Errors
/// [`Error::NotFound`] where there is no such session, or no asset of it. After [`Error::Storage`] and
/// [`Error::DbUnavailable`] the asset is UPLOADED, and the same call goes on.
pub async fn promote(engine: &Engine, tenant: TenantId, session: SessionId) -> Result<Promoted> {
    attempt(engine, tenant, session, true).await
}

/// `again`: an earlier try may have lost the store's answer, or died before it was recorded.
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

/// How the copy stands.
enum Fetched {
    Whole,
    /// There is none, and never will be.
    Lost(&'static str),
}

async fn fetch(engine: &Engine, session: &Session, asset: &Asset, to: &Location, again: bool) -> Result<Fetched> {
    let from = location(session);
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
            // The store itself says what it has made: that is the look at it.
            Ok(Some(etag)) if etag == asset.etag => return Ok(Fetched::Whole),
            // Of another object, or of the same one: it is copied again, with a look before and after.
            Ok(etag) => {
                has_copied = true;
                engine.storage.note_copy(&asset.etag, etag.as_deref());
            }
            Err(error) => return judge_refusal(engine, session, asset, to, error).await,
        }
    }
    // Not every store honours the condition of a copy. Whatever this look may find is left to the copy itself: trouble comes
    // up there again, its answer can tell a missing object from a missing bucket, and one look alone proves no other object.
    let before = engine.storage.head(&from).await.ok();
    if !has_copied
        && before.as_ref().is_some_and(|object| object.etag != asset.etag)
        && let Some(fetched) = standing(engine, session, asset, to, "another ETag").await?
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
    if !matches!(error.kind, Kind::Changed | Kind::NotFound) {
        return Err(failed(engine, session, error).await);
    }
    // Another one at the same work may have been quicker, and have deleted the source.
    match standing(engine, session, asset, to, &error.code).await? {
        Some(fetched) => Ok(fetched),
        None => judge_source(engine, session, asset, error).await,
    }
}

/// What to think of a copy that was there before, where the source is no help. One that may be the right one, and cannot be
/// proved, is neither copied over nor given up: to fail the asset would make it nobody's. Restoring the database to before
/// the asset was READY leaves such a one.
async fn standing(
    engine: &Engine,
    session: &Session,
    asset: &Asset,
    to: &Location,
    why: &str,
) -> Result<Option<Fetched>> {
    match look(engine, asset, to).await? {
        Some(copy) if is_proved(asset, &copy) => Ok(Some(Fetched::Whole)),
        Some(copy) if difference(asset, &copy).is_none() => {
            let what = format!("{why}, and a copy is there that cannot be proved");
            Err(in_doubt(engine, session, &what).await)
        }
        Some(_) | None => Ok(None),
    }
}

/// What to think of a copy that the store says it has made: by its size, by what tells that it has the same bytes, or else
/// by a look at the source, which must be the one that it was before.
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
    let Some(copy) = copy else { return Err(in_doubt(engine, session, "there is no copy").await) };
    if let Some(why) = difference(asset, &copy) {
        return Ok(Fetched::Lost(why));
    }
    if is_proved(asset, &copy) {
        return Ok(Fetched::Whole);
    }
    let from = location(session);
    let is_another = |object: &Object| object.etag != asset.etag;
    if let (Some(before), Some(after)) = (before, engine.storage.find(&from).await?) {
        // By the time, too: one that was put in its place and put back has the same ETag.
        if after == before && !is_another(&after) {
            return Ok(Fetched::Whole);
        }
        // The store has copied what it says is another object: it ignores the condition, if a list says so too.
        if is_another(&before)
            && is_another(&after)
            && engine.storage.listed_etag(&from).await?.is_some_and(|etag| etag != asset.etag)
        {
            return Ok(Fetched::Lost(CHANGED));
        }
    }
    Err(in_doubt(engine, session, "the source was not the same before and after the copy").await)
}

/// The store has refused to copy the source: only a second answer makes certain why.
async fn judge_source(engine: &Engine, session: &Session, asset: &Asset, error: storage::Error) -> Result<Fetched> {
    let from = location(session);
    match engine.storage.find(&from).await? {
        Some(object) if error.kind == Kind::Changed && object.etag != asset.etag => Ok(Fetched::Lost(CHANGED)),
        None if engine.storage.is_gone(&from).await? => Ok(Fetched::Lost(GONE)),
        // It is there after all, or another one is.
        Some(_) | None => Err(in_doubt(engine, session, &format!("{}, and the source is there", error.code)).await),
    }
}

async fn in_doubt(engine: &Engine, session: &Session, what: &str) -> Error {
    failed(engine, session, storage::Error::unclear(Op::Copy, what)).await
}

async fn failed(engine: &Engine, session: &Session, error: storage::Error) -> Error {
    record_effect(engine, session, ACTOR, Effect::Copy, json!({}), Err(&error)).await;
    error.into()
}

/// What is where the asset is to be served from, with its checksum where there is one to compare it with.
async fn look(engine: &Engine, asset: &Asset, to: &Location) -> Result<Option<Object>> {
    let found = if asset.checksum_verified {
        engine.storage.find_with_checksum(to).await
    } else {
        engine.storage.find(to).await
    };
    Ok(found?)
}

/// What tells a copy from what was completed, if anything does. Another ETag says nothing: a store may make one of how the
/// object came to be, or of how it is encrypted.
fn difference(asset: &Asset, copy: &Object) -> Option<&'static str> {
    if copy.size != asset.file_size.unsigned_abs() {
        return Some(CUT);
    }
    let has_same_content = has_same_checksum(asset, copy).unwrap_or(true);
    (!has_same_content).then_some(OTHER)
}

/// Whether the copy itself shows that it is what was completed.
fn is_proved(asset: &Asset, copy: &Object) -> bool {
    difference(asset, copy).is_none() && has_same_checksum(asset, copy).unwrap_or(copy.etag == asset.etag)
}

/// `None` where there are no two checksums to compare.
fn has_same_checksum(asset: &Asset, copy: &Object) -> Option<bool> {
    let completed = asset.checksum_sha256.as_deref().filter(|_| asset.checksum_verified)?;
    Some(hex::encode(copy.sha256?) == completed)
}

/// The status and its event in one transaction.
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
    warn!(asset.id = %asset.id, why, "an asset is FAILED, and waits for an operator");
    Ok(Promoted::Failed(asset))
}

/// Whoever was quicker has said what becomes of it.
pub(super) async fn already(engine: &Engine, asset: &Asset) -> Result<Promoted> {
    let asset = rows::find(engine.db.conn(), asset.tenant_id, asset.id).await?;
    asset.map(Promoted::Already).ok_or(Error::NotFound)
}
