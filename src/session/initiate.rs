use std::time::Duration;

use entity::upload_session::{Status, UploadType};
use entity::{AssetId, BrandId, SessionId, TenantId, upload_event};
use futures_util::FutureExt as _;
use serde_json::json;
use tracing::instrument;

use super::plan::{Plan, max_file_bytes, plan};
use super::rows::{self, Inserted, Scope};
use super::{Change, Session, location, open, transition};
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Conflict, Error, Field, Result};
use crate::event;
use crate::input::{FileName, IdempotencyKey, MediaType, Metadata, Reference, Sha256, Wrong};
use crate::keys::Entry;
use crate::outage::Outage;
use crate::settings::ProvisionStrategy;
use crate::storage::Presigned;
use crate::tenant;
use crate::together::{Together, Way};
use crate::yielding::give_way;

/// The upload profile of the native API.
const PROFILE: &str = "default";

/// A file to upload.
#[derive(Clone, Debug)]
pub struct NewUpload {
    pub file_name: FileName,
    /// Bytes.
    pub file_size: u64,
    pub mime_type: MediaType,
    pub brand_id: Option<BrandId>,
    pub client_reference: Option<Reference>,
    pub batch_reference: Option<Reference>,
    pub fingerprint: Option<Reference>,
    pub checksum_sha256: Option<Sha256>,
    pub metadata: Metadata,
    pub idempotency_key: Option<IdempotencyKey>,
}

/// A new session, or an earlier one in any state.
#[derive(Clone)]
pub struct Initiated {
    pub session: Session,
    /// The URL for the PUT of a direct session that is UPLOADING.
    pub put: Option<Presigned>,
    /// Whether this call created the session.
    pub created: bool,
}

/// Opens an upload session, or returns the one that was opened before with the same references or idempotency key.
///
/// Safe to repeat: a session whose opening was interrupted is opened by the next call with the same references.
///
/// # Errors
/// [`Error::Invalid`], [`Error::ReferenceConflict`], [`Error::TenantSuspended`], [`Error::QuotaExceeded`].
/// [`Error::Storage`] and [`Error::DbUnavailable`] leave nothing, or an INITIATING session from which the same call
/// continues.
#[instrument(name = "session.initiate", skip_all, fields(tenant.id = %caller.tenant, session.id))]
pub async fn initiate(engine: &Engine, caller: &Caller, new: NewUpload) -> Result<Initiated> {
    let planned = plan_file(engine, &new)?;
    let brand = tenant::brand_for(engine, caller, new.brand_id).await?;
    let scope = Scope { tenant: caller.tenant, brand, user: caller.user() };

    // A reference that is taken between the lookup and the insert is found by the second lookup.
    for _ in 0..2 {
        if let Some(session) = find_same(engine, scope, &new).await? {
            let session = match session.status {
                Status::Initiating => open::open(engine, &session, &caller.actor, true).await?,
                Status::Uploading | Status::Completed | Status::Failed | Status::Cancelled => session,
            };
            return answer(engine, session, false).await;
        }
        let draft = draft(engine, caller, scope, &new, planned, &bucket(engine, scope.tenant).await?);
        if let Some(session) = engine.openings.done(scope.tenant, engine, draft, OPENING).await? {
            let session = match planned {
                Plan::Direct => session,
                Plan::Multipart { .. } => open::open(engine, &session, &caller.actor, false).await?,
            };
            return answer(engine, session, true).await;
        }
    }
    Err(Error::ReferenceConflict(Conflict::TwoSessions))
}

fn plan_file(engine: &Engine, new: &NewUpload) -> Result<Plan> {
    let profile = engine.settings.default_profile();
    let limits = engine.storage.limits();
    plan(new.file_size, profile, limits).ok_or_else(|| {
        Error::Invalid(wrong_size(engine, new.file_size).map(|wrong| (Field::FileSize, wrong)).into_iter().collect())
    })
}

/// Returns why [`initiate`] refuses a file that is too small or too large. Doors call this first, to report it together with
/// all other wrong fields.
pub fn wrong_size(engine: &Engine, bytes: u64) -> Option<Wrong> {
    let profile = engine.settings.default_profile();
    let (least, most) = (profile.min_file_bytes, max_file_bytes(profile, engine.storage.limits()));
    match bytes {
        _ if bytes < least => Some(Wrong::FileTooSmall { bytes, least }),
        _ if bytes > most => Some(Wrong::FileTooLarge { bytes, most }),
        _ => None,
    }
}

/// Returns the earlier session with these references or this idempotency key.
async fn find_same(engine: &Engine, scope: Scope<'_>, new: &NewUpload) -> Result<Option<Session>> {
    let conn = &engine.db.lookup_conn().of(scope.tenant);
    let by_key = match &new.idempotency_key {
        Some(key) => rows::one(conn, rows::by_idempotency_key(scope, key.as_str())).await?,
        None => None,
    };
    let by_references = match (&new.batch_reference, &new.client_reference) {
        (Some(batch), Some(client)) => {
            rows::one(conn, rows::by_references(scope, batch.as_str(), client.as_str())).await?
        }
        _ => None,
    };
    let session = match (by_key, by_references) {
        (Some(a), Some(b)) if a.id != b.id => {
            return Err(Error::ReferenceConflict(Conflict::TwoSessions));
        }
        (Some(session), _) | (None, Some(session)) => session,
        (None, None) => return Ok(None),
    };
    let same = session.file_name == new.file_name.as_str()
        && u64::try_from(session.file_size) == Ok(new.file_size)
        && session.mime_type == new.mime_type.as_str()
        && session.checksum_sha256.as_deref() == new.checksum_sha256.as_ref().map(Sha256::as_str);
    if same { Ok(Some(session)) } else { Err(Error::ReferenceConflict(Conflict::AnotherFile)) }
}

/// Like [`initiate`], for many files; stores the direct ones in one transaction. The caller has just checked that no session
/// has their references. Returns the opened sessions with their places. [`initiate`] must open or refuse each of the others
/// alone.
///
/// # Errors
/// [`Error::DbUnavailable`].
pub(super) async fn initiate_together(
    engine: &Engine,
    caller: &Caller,
    files: &[(usize, &NewUpload)],
) -> Result<Vec<(usize, Result<Initiated>)>> {
    let mut drafts = Vec::new();
    let Some(bucket) = unless_refused(bucket(engine, caller.tenant).await)? else { return Ok(vec![]) };
    for (place, new) in files {
        give_way();
        if let Ok(planned @ Plan::Direct) = plan_file(engine, new)
            && let Some(brand) = unless_refused(tenant::brand_for(engine, caller, new.brand_id).await)?
        {
            let scope = Scope { tenant: caller.tenant, brand, user: caller.user() };
            drafts.push((*place, draft(engine, caller, scope, new, planned, &bucket)));
        }
    }
    let (places, drafts): (Vec<_>, Vec<_>) = drafts.into_iter().unzip();
    if drafts.len() < 2 {
        return Ok(vec![]);
    }
    let inserted = unless_refused(insert(engine, caller.tenant, drafts).await)?.unwrap_or_default();
    let mut opened = Vec::with_capacity(inserted.len());
    for (place, session) in places.into_iter().zip(inserted) {
        opened.push((place, answer(engine, session, true).await));
    }
    Ok(opened)
}

/// Turns a refusal of several files together into `None`, because it may concern only one of them. Only an outage of the
/// database concerns them all.
fn unless_refused<T>(done: Result<T>) -> Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error @ Error::DbUnavailable(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A session that is not stored yet, and its events.
#[derive(Clone, Debug)]
pub struct Draft(Session, Vec<upload_event::ActiveModel>);

/// Sessions that wait to be stored, by tenant. The result is `None` if a reference or key is taken.
pub type Openings = Together<TenantId, Draft, Result<Option<Session>>>;

/// A session is stored without a delay. Sessions that come while two transactions of their tenant are running share the
/// next.
const OPENING: Way<Engine, TenantId, Draft, Result<Option<Session>>> = Way {
    gather: Duration::ZERO,
    groups: 2,
    most: |engine, tenant| engine.db.at_once(*tenant),
    work: |engine, drafts| async move { insert_each(&engine, drafts).await }.boxed(),
};

async fn insert_each(engine: &Engine, drafts: Vec<Draft>) -> Vec<Result<Option<Session>>> {
    let Some(Draft(first, _)) = drafts.first() else { return vec![] };
    let tenant = first.tenant_id;
    if drafts.len() > 1 {
        match insert(engine, tenant, drafts.clone()).await {
            Ok(sessions) if !sessions.is_empty() => return sessions.into_iter().map(|one| Ok(Some(one))).collect(),
            Ok(_) => {}
            Err(error) => {
                if let Some(answers) = error.for_each(drafts.len()) {
                    return answers;
                }
            }
        }
    }
    // The refusal may concern only one of them: each is tried alone.
    let (outage, mut each) = (Outage::default(), Vec::with_capacity(drafts.len()));
    for draft in drafts {
        let inserted = outage.attempt(insert(engine, tenant, vec![draft])).await;
        each.push(inserted.map(|mut sessions| sessions.pop()));
    }
    each
}

/// Builds a session and its events. A direct session begins as UPLOADING, because it needs no call to the store: nobody
/// would see it INITIATING, and inserting a row and changing it at once would write everything twice.
fn draft(engine: &Engine, caller: &Caller, scope: Scope<'_>, new: &NewUpload, planned: Plan, bucket: &str) -> Draft {
    let now = engine.clock.now();
    let id = SessionId::new();
    let entry = Entry {
        event: "initiate",
        from: None,
        to: Some(Status::Initiating),
        actor: caller.actor.name(),
        actor_kind: Some(caller.actor.kind()),
        reason: None,
        details: json!({
            "file_name": new.file_name.as_str(),
            "file_size": new.file_size,
            "mime_type": new.mime_type.as_str(),
            "checksum_sha256": new.checksum_sha256.as_ref().map(Sha256::as_str),
            "brand_id": scope.brand,
            "batch_reference": new.batch_reference.as_ref().map(Reference::as_str),
            "client_reference": new.client_reference.as_ref().map(Reference::as_str),
        }),
        at: now,
    };
    let mut link = engine.keys.link(&engine.keys.genesis(scope.tenant, id), scope.tenant, id, 1, &entry);
    let mut events = vec![event::rows::row(scope.tenant, id, 1, &entry, &link.mac)];
    if planned == Plan::Direct {
        let opened = transition::entry(Status::Initiating, &Change::open(&caller.actor, None), Status::Uploading, now);
        link = engine.keys.link(&link.head, scope.tenant, id, 2, &opened);
        events.push(event::rows::row(scope.tenant, id, 2, &opened, &link.mac));
    }
    let (upload_type, chunk_size, total_parts) = match planned {
        Plan::Direct => (UploadType::Direct, None, None),
        Plan::Multipart { chunk, parts } => (UploadType::Multipart, Some(signed(chunk)), i32::try_from(parts).ok()),
    };
    // Each change of state has its number, and a direct session has already had its first one.
    let (status, version) = match planned {
        Plan::Direct => (Status::Uploading, 2),
        Plan::Multipart { .. } => (Status::Initiating, 1),
    };
    let session = Session {
        tenant_id: scope.tenant,
        id,
        brand_id: scope.brand,
        created_by: scope.user.to_owned(),
        status,
        version,
        event_seq: i32::try_from(events.len()).unwrap_or(i32::MAX),
        chain_head: link.head,
        failure_reason: None,
        upload_type,
        profile: PROFILE.to_owned(),
        url_ttl_secs: i32::try_from(engine.settings.default_profile().url_ttl_secs).unwrap_or(i32::MAX),
        bucket: bucket.to_owned(),
        multipart_upload_id: None,
        chunk_size,
        total_parts,
        file_name: new.file_name.to_string(),
        file_size: signed(new.file_size),
        mime_type: new.mime_type.to_string(),
        checksum_sha256: new.checksum_sha256.as_ref().map(ToString::to_string),
        metadata: new.metadata.to_value(),
        client_reference: new.client_reference.as_ref().map(ToString::to_string),
        batch_reference: new.batch_reference.as_ref().map(ToString::to_string),
        fingerprint: new.fingerprint.as_ref().map(ToString::to_string),
        idempotency_key: new.idempotency_key.as_ref().map(ToString::to_string),
        asset_id: AssetId::new(),
        completing_at: None,
        completing_by: None,
        completing_title: None,
        completing_metadata: None,
        created_at: now,
        updated_at: now,
        last_activity_at: now,
        expires_at: rows::expiry(now, now, &engine.settings.sessions),
        completed_at: None,
        failed_at: None,
        cancelled_at: None,
        storage_cleared_at: None,
        clear_failed_at: None,
    };
    Draft(session, events)
}

/// Converts a size. Sizes are far below 2^63, because the largest object of any store is.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Stores sessions of one tenant with their events: all, or none if a reference or key of one was taken meanwhile.
async fn insert(engine: &Engine, tenant: TenantId, drafts: Vec<Draft>) -> Result<Vec<Session>> {
    let (sessions, events): (Vec<_>, Vec<_>) = drafts.into_iter().map(|Draft(row, events)| (row, events)).unzip();
    let events: Vec<_> = events.into_iter().flatten().collect();
    let bytes = sessions.iter().fold(0_i64, |sum, session| sum.saturating_add(session.file_size));
    let number = i64::try_from(sessions.len()).unwrap_or(i64::MAX);

    // On PostgreSQL, a transaction of one statement: each further statement would be a round trip.
    let reserving = tenant::rows::reserving(tenant, number, bytes);
    match rows::insert_where(&engine.db.write_conn().of(tenant), &sessions, &events, reserving).await? {
        Inserted::All => {
            engine.db.notify(event::rows::CHANNEL).await;
            return Ok(sessions);
        }
        Inserted::Taken => return Ok(vec![]),
        Inserted::None => {}
    }
    let tx = engine.db.begin_for(tenant).await?;
    if let Err(error) = tenant::rows::reserve(&tx, tenant, number, bytes).await {
        tx.rollback().await;
        return Err(error);
    }
    if !rows::insert(&tx, &sessions).await? {
        tx.rollback().await;
        return Ok(vec![]);
    }
    event::rows::insert_all(&tx, events).await?;
    tx.commit().await?;
    Ok(sessions)
}

/// Returns the bucket for new sessions of this tenant.
async fn bucket(engine: &Engine, tenant: TenantId) -> Result<String> {
    match engine.settings.storage.provision_strategy {
        ProvisionStrategy::Shared => Ok(engine.storage.bucket().to_owned()),
        ProvisionStrategy::Dedicated => {
            let tenant = tenant::rows::find(&engine.db.conn().of(tenant), tenant).await?.ok_or(Error::NotFound)?;
            tenant.bucket.ok_or_else(|| Error::NoBucket(tenant.slug))
        }
    }
}

async fn answer(engine: &Engine, session: Session, created: bool) -> Result<Initiated> {
    give_way();
    tracing::Span::current().record("session.id", tracing::field::display(session.id));
    let put = put_url(engine, &session).await?;
    Ok(Initiated { session, put, created })
}

/// Signs a new URL for the PUT of a direct session; `None` if it is not direct, not UPLOADING, or has expired.
pub(super) async fn put_url(engine: &Engine, session: &Session) -> Result<Option<Presigned>> {
    if session.status != Status::Uploading || session.upload_type != UploadType::Direct {
        return Ok(None);
    }
    let Some(ttl) = url_ttl(engine, session) else { return Ok(None) };
    let size = session.file_size.unsigned_abs();
    let signer = engine.storage.signer().await?;
    let checksum = session.checksum_sha256.as_deref().and_then(digest);
    Ok(Some(signer.put_object(&location(session), size, &session.mime_type, checksum, ttl)))
}

/// Decodes a SHA-256 from hex.
fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(hex, &mut bytes).ok().map(|()| bytes)
}

/// Returns how long a URL of this session may be valid, never longer than the session; `None` if the session has expired.
pub(super) fn url_ttl(engine: &Engine, session: &Session) -> Option<Duration> {
    let left = (session.expires_at - engine.clock.now()).to_std().ok().filter(|left| left.as_secs() > 0)?;
    Some(left.min(Duration::from_secs(u64::from(session.url_ttl_secs.unsigned_abs()))))
}
