//! The audit: verifies that the recorded history is as this server wrote it.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;

use chrono::{DateTime, Utc};
use entity::upload_session::Status;
use entity::{SessionId, TenantId, asset, upload_event, upload_session, upload_tombstone};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::Keys;
use super::chain::Entry;
use super::pruned::{self, BLOCK};
use super::rows::{self, Ids};
use crate::action;
use crate::clock::CLOCKS_DIFFER_MAX;
use crate::engine::Engine;
use crate::error::Result;
use crate::session::{location, state};
use crate::tenant::{self, Usage};

const SESSIONS_AT_ONCE: u64 = 500;
const TOMBSTONES_AT_ONCE: u64 = 1_000;
/// Findings that are reported one by one; the rest are only counted. With a wrong key every session is a finding.
const FINDINGS_MAX: usize = 1_000;

/// What to verify; empty means everything. Only a full verification can tell that no whole session is missing, and covers
/// the operators' actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub tenant: Option<TenantId>,
    pub session: Option<SessionId>,
}

/// Something that is not as this server wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub tenant_id: Option<TenantId>,
    pub upload_session_id: Option<SessionId>,
    /// The event's number in its session.
    pub seq: Option<i32>,
    /// For people.
    pub what: String,
}

/// What a verification has read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    pub sessions: u64,
    pub events: u64,
    /// Deleted sessions that have left a tombstone.
    pub tombstones: u64,
    /// Places in the order of all events; `None` if only a part was verified.
    pub positions: Option<i64>,
    /// Operators' actions; `None` if only a part was verified.
    pub actions: Option<u64>,
    /// The number of findings.
    pub found: u64,
    /// The first 1,000 findings.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }

    fn add(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn add_stray(&mut self, event: &upload_event::Model) {
        self.add(Finding {
            tenant_id: Some(event.tenant_id),
            upload_session_id: Some(event.upload_session_id),
            seq: Some(event.seq),
            what: "the event has no session".to_owned(),
        });
    }

    fn add_to_order(&mut self, what: String) {
        self.add(Finding { tenant_id: None, upload_session_id: None, seq: None, what });
    }
}

/// Recomputes every chain of events, and the chain of the operators' actions, and compares them with what is stored. Also
/// compares the stored rows with their events.
///
/// A server may go on working meanwhile. No snapshot lasts longer than a few hundred sessions take: during a long
/// transaction the database must keep everything that is changed until its end. Facts compared over many of these snapshots
/// (what a tenant holds, the order of all events, tenants and actions) are compared as of one moment, or read once more if
/// they changed in between.
///
/// Needs memory for a few hundred sessions, 24 bytes for each event of a deleted session that has a tombstone, 20 for
/// each session with an event that has no place yet, and all tenants with their brands. `progress` is called from time to
/// time.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] and [`crate::error::Error::Db`]: the verification is incomplete.
pub async fn verify(engine: &Engine, scope: &Scope, mut progress: impl FnMut(&VerifyReport)) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let (tenants, began) = Beginning::look(engine, scope).await?;
    let mut buried = Buried::default();
    for (tenant, held) in tenants {
        // One session is the range above the id before its own, up to its own.
        let one = scope.session;
        let before = one.map(|id| SessionId(Uuid::from_u128(id.0.as_u128().saturating_sub(1))));
        let ids = Ids { tenant, after: before, until: one };
        let counted = check_sessions_of(engine, ids, &began, &mut report, &mut progress).await?;
        let is_whole = check_tombstones(engine, ids, &began, &mut buried, &mut report).await?;
        if one.is_none() && is_whole && counted != held {
            report.add(Finding {
                tenant_id: Some(tenant),
                upload_session_id: None,
                seq: None,
                what: "the tenant's recorded usage is not the sum of its sessions".to_owned(),
            });
        }
    }
    if *scope == Scope::default() {
        check_order(engine, &began, buried, &mut report).await?;
        report.positions = Some(began.last_position);
        let mut tell = |tenant_id, what| report.add(Finding { tenant_id, upload_session_id: None, seq: None, what });
        let actions = action::check(engine, &mut tell).await?;
        report.actions = Some(actions);
    }
    Ok(report)
}

/// The state when the audit begins. Sums are compared as of this moment.
struct Beginning {
    at: DateTime<Utc>,
    last_position: i64,
    /// The highest place that an event had.
    highest_position: i64,
    /// For each session with an event that had no place then: how many events it had.
    unplaced: HashMap<SessionId, i32>,
}

impl Beginning {
    /// Reads the tenants with their recorded usage, and the state at the same moment.
    async fn look(engine: &Engine, scope: &Scope) -> Result<(Vec<(TenantId, Usage)>, Self)> {
        let at = engine.db.snapshot().await?;
        let mut tenants = Vec::new();
        for tenant in rows::tenants(&at, scope.tenant).await? {
            tenants.push((tenant, tenant::rows::usage(at.conn(), tenant).await?));
        }
        let began = Self {
            // Rows are deleted by the earlier of the two times.
            at: engine.clock.now().min(engine.clock.lived()) - CLOCKS_DIFFER_MAX,
            last_position: rows::last_position(at.conn()).await?,
            highest_position: rows::highest_position(&at).await?,
            unplaced: rows::unplaced(&at, scope.tenant).await?,
        };
        Ok((tenants, began))
    }

    /// Returns the events that the session had then.
    fn known<'a>(
        &self,
        session: SessionId,
        events: &'a [upload_event::Model],
    ) -> impl Iterator<Item = &'a upload_event::Model> {
        let placed = events.iter().filter(|event| event.position.is_some_and(|place| place <= self.last_position));
        let last = placed.map(|event| event.seq).max().max(self.unplaced.get(&session).copied());
        events.iter().take_while(move |event| Some(event.seq) <= last)
    }
}

/// What a tenant holds, in types that no sum overflows.
#[derive(Default)]
struct Held {
    live_sessions: i64,
    bytes: i128,
}

impl Held {
    /// Adds a session, in the state that these events led to.
    fn add<'a>(&mut self, session: &upload_session::Model, events: impl Iterator<Item = &'a upload_event::Model>) {
        let (mut status, mut is_cleared) = (None, false);
        for event in events {
            status = event.to_status;
            is_cleared |= event.event == "storage.clear";
        }
        let Some(status) = status else { return };
        self.live_sessions += i64::from(!state::is_terminal(status));
        let is_there = status == Status::Completed || !is_cleared;
        self.bytes += if is_there { i128::from(session.file_size) } else { 0 };
    }
}

/// Checks sessions of a tenant, and returns what they held when the audit began.
async fn check_sessions_of(
    engine: &Engine,
    mut ids: Ids,
    began: &Beginning,
    report: &mut VerifyReport,
    progress: &mut impl FnMut(&VerifyReport),
) -> Result<Usage> {
    let mut held = Held::default();
    loop {
        let at = engine.db.snapshot().await?;
        let sessions = rows::sessions(&at, ids, SESSIONS_AT_ONCE).await?;
        let more = sessions.last().filter(|_| sessions.len() as u64 == SESSIONS_AT_ONCE).map(|last| last.id);
        // Up to the last session of the page, or to the end of the range, so that no event falls between two pages.
        let page = Ids { until: more.or(ids.until), ..ids };
        let events = rows::of_sessions(&at, page).await?;
        let assets = rows::assets_of_sessions(&at, page).await?;
        let last_position = rows::last_position(at.conn()).await?;
        drop(at);
        let mut count = |session: &_, events: &[_]| held.add(session, began.known(session.id, events));
        check_sessions(&engine.keys, &sessions, events, &assets, last_position, report, &mut count);
        progress(report);
        match more {
            Some(last) => ids.after = Some(last),
            None => break,
        }
    }
    Ok(Usage { live_sessions: held.live_sessions, bytes: tenant::rows::clamped(held.bytes) })
}

/// Checks sessions. `events` are those of all these sessions and of any ids between them; both lists are in order. Calls
/// `see` with each session and its own events.
fn check_sessions(
    keys: &Keys,
    sessions: &[upload_session::Model],
    events: Vec<upload_event::Model>,
    assets: &[asset::Model],
    last_position: i64,
    report: &mut VerifyReport,
    see: &mut impl FnMut(&upload_session::Model, &[upload_event::Model]),
) {
    let mut events = events.into_iter().peekable();
    for session in sessions {
        while let Some(stray) = events.next_if(|event| event.upload_session_id < session.id) {
            report.add_stray(&stray);
        }
        let own = take_own(&mut events, session.id);
        report.sessions += 1;
        report.events += own.len() as u64;
        see(session, &own);
        let asset = assets.iter().find(|asset| asset.upload_session_id == session.id);
        let mut check = Check { session, report };
        check.chain(keys, &own);
        check.places(&own, last_position);
        check.columns(&own);
        check.asset(&own, asset);
    }
    for stray in events {
        report.add_stray(&stray);
    }
}

fn take_own(
    events: &mut Peekable<impl Iterator<Item = upload_event::Model>>,
    session: SessionId,
) -> Vec<upload_event::Model> {
    std::iter::from_fn(|| events.next_if(|event| event.upload_session_id == session)).collect()
}

/// The check of one session.
struct Check<'a> {
    session: &'a upload_session::Model,
    report: &'a mut VerifyReport,
}

impl Check<'_> {
    fn found(&mut self, seq: Option<i32>, what: impl Into<String>) {
        self.report.add(Finding {
            tenant_id: Some(self.session.tenant_id),
            upload_session_id: Some(self.session.id),
            seq,
            what: what.into(),
        });
    }

    fn unless(&mut self, fine: bool, seq: Option<i32>, what: &str) {
        if !fine {
            self.found(seq, what);
        }
    }

    /// Checks the chain from the first event to the head on the session's row.
    fn chain(&mut self, keys: &Keys, events: &[upload_event::Model]) {
        let session = self.session;
        let mut head = keys.genesis(session.tenant_id, session.id);
        for (event, seq) in events.iter().zip(1..) {
            if event.seq != seq {
                self.found(Some(seq), format!("the event is missing; the next one is number {}", event.seq));
                return;
            }
            let entry = Entry {
                event: &event.event,
                from: event.from_status,
                to: event.to_status,
                actor: &event.actor,
                actor_kind: event.actor_kind,
                reason: event.reason,
                details: event.details.clone(),
                at: event.at,
            };
            let link = keys.link(&head, session.tenant_id, session.id, seq, &entry);
            if link.mac != event.mac {
                self.found(Some(seq), "the event is not as it was recorded, or was recorded with another key");
                return;
            }
            head = link.head;
        }
        let (has, counts) = (events.len(), session.event_seq);
        if usize::try_from(counts) != Ok(has) {
            self.found(None, format!("the session's row counts {counts} events, but there are {has}"));
        } else if session.chain_head != head {
            self.found(None, "the chain does not end in the head that the session's row has");
        }
    }

    /// Checks that places grow with `seq`, and that only the last events have none yet.
    fn places(&mut self, events: &[upload_event::Model], last_position: i64) {
        let mut before = 0;
        let mut waiting = false;
        for event in events {
            let Some(position) = event.position else {
                waiting = true;
                continue;
            };
            self.unless(
                !waiting,
                Some(event.seq),
                "the event has a place in the order of all events, but the event before it has none",
            );
            self.unless(position > before, Some(event.seq), "the event's place is not after that of the event before");
            self.unless(position <= last_position, Some(event.seq), "the event's place was never given");
            before = position;
        }
    }

    /// Compares the session's row with its events.
    fn columns(&mut self, events: &[upload_event::Model]) {
        let session = self.session;
        let mut status = None;
        let mut version = 0;
        for event in events {
            self.unless(
                event.from_status == status,
                Some(event.seq),
                "the event's from_status is not the state that the event before led to",
            );
            version += i32::from(event.to_status != status);
            status = event.to_status;
        }
        self.unless(status == Some(session.status), None, "the session's status is not what its events led to");
        self.unless(version == session.version, None, "the session's version is not the number of its changes");

        if let Some(first) = events.first() {
            let said = |name: &str| first.details.get(name).cloned().unwrap_or_default();
            let now = [
                ("file_name", Value::from(session.file_name.as_str())),
                ("file_size", Value::from(session.file_size)),
                ("mime_type", Value::from(session.mime_type.as_str())),
                ("checksum_sha256", Value::from(session.checksum_sha256.clone())),
                ("brand_id", Value::from(session.brand_id.to_string())),
                ("batch_reference", Value::from(session.batch_reference.clone())),
                ("client_reference", Value::from(session.client_reference.clone())),
            ];
            for (name, value) in now {
                self.unless(said(name) == value, None, &format!("the session's {name} is not what it was opened with"));
            }
            self.unless(
                first.actor == session.created_by,
                None,
                "the session's created_by is not the actor of its first event",
            );
            self.unless(
                first.at == session.created_at,
                None,
                "the session's created_at is not the time of its first event",
            );
        }
        let when =
            |to: Status| events.iter().find(|event| event.to_status == Some(to) && event.from_status != Some(to));
        let ends = [
            (Status::Completed, session.completed_at, "completed_at"),
            (Status::Failed, session.failed_at, "failed_at"),
            (Status::Cancelled, session.cancelled_at, "cancelled_at"),
        ];
        for (to, at, name) in ends {
            self.unless(when(to).map(|event| event.at) == at, None, &format!("no event has the session's {name}"));
        }
        // Bytes of an ended session count until it is cleared.
        let cleared = named(events, "storage.clear").map(|event| event.at);
        self.unless(cleared == session.storage_cleared_at, None, "no event has the session's storage_cleared_at");
        // Older servers recorded the event and did not set the mark.
        let is_of_event = |at| events.iter().any(|event| event.event == "storage.clear_failed" && event.at == at);
        let tried = session.clear_failed_at.is_none_or(is_of_event);
        self.unless(tried, None, "no event has the session's clear_failed_at");
        let reason = when(Status::Failed).and_then(|event| event.reason);
        self.unless(reason == session.failure_reason, None, "the session's failure_reason differs from its event's");
        let upload = when(Status::Uploading).and_then(|event| event.details.get("multipart_upload_id")?.as_str());
        self.unless(
            upload == session.multipart_upload_id.as_deref(),
            None,
            "the session's multipart_upload_id is not what it was opened with",
        );
    }

    /// Checks that there is an asset if and only if the session is COMPLETED, and that it is what was completed.
    fn asset(&mut self, events: &[upload_event::Model], asset: Option<&asset::Model>) {
        let session = self.session;
        let completed = session.status == Status::Completed;
        let Some(asset) = asset else {
            self.unless(!completed, None, "the session is COMPLETED but has no asset");
            return;
        };
        self.unless(completed, None, "the session has an asset but is not COMPLETED");
        self.unless(asset.id == session.asset_id, None, "the asset's id is not the one that the session reserved");
        let said = |event: Option<&upload_event::Model>, name: &str| {
            event.and_then(|event| Some(event.details.get(name)?.as_str()?.to_owned()))
        };
        let complete = named(events, state::Event::Complete.name());
        let etag = said(complete, "etag");
        self.unless(etag.as_ref() == Some(&asset.etag), None, "the asset's etag is not what was completed");
        self.unless(asset.file_size == session.file_size, None, "the asset's file_size is not the session's");
        self.unless(asset.created_by == session.created_by, None, "the asset's created_by is not the session's");
        let verified = complete.and_then(|event| event.details.get("checksum_verified")?.as_bool());
        let is_said = verified == Some(asset.checksum_verified);
        self.unless(is_said, None, "the asset's checksum_verified is not what was completed");
        self.unless(asset.brand_id == session.brand_id, None, "the asset's brand_id is not the session's");
        self.unless(asset.mime_type == session.mime_type, None, "the asset's mime_type is not the session's");
        let checksum = session.checksum_sha256.is_none() || asset.checksum_sha256 == session.checksum_sha256;
        self.unless(checksum, None, "the asset's checksum_sha256 is not the session's");

        let (ready, failed) = (named(events, "asset.ready"), named(events, "asset.failed"));
        let status = match (ready, failed) {
            (Some(_), _) => asset::Status::Ready,
            (None, Some(_)) => asset::Status::Failed,
            (None, None) => asset::Status::Uploaded,
        };
        self.unless(asset.status == status, None, "the asset's status is not what its events led to");
        self.unless(asset.ready_at == ready.map(|event| event.at), None, "no event has the asset's ready_at");
        self.unless(asset.failure == said(failed, "failure"), None, "no event has the asset's failure");
        let at = location(session);
        let key = said(ready, "object_key").unwrap_or(at.key);
        self.unless(asset.object_key == key, None, "the asset's object_key is not the recorded one");
        self.unless(asset.bucket == at.bucket, None, "the asset's bucket is not the session's");
    }
}

/// Returns the first event of that name.
fn named<'a>(events: &'a [upload_event::Model], name: &str) -> Option<&'a upload_event::Model> {
    events.iter().find(|event| event.event == name)
}

/// The places that deleted sessions' events had, by their tombstones.
#[derive(Default)]
struct Buried {
    tombstones: Vec<(TenantId, SessionId)>,
    /// Each with the index of its tombstone.
    places: Vec<(i64, u32)>,
}

impl Buried {
    fn add(&mut self, row: &upload_tombstone::Model) {
        let index = u32::try_from(self.tombstones.len()).unwrap_or(u32::MAX);
        self.tombstones.push((row.tenant_id, row.upload_session_id));
        self.places.extend(places_of(row).map(|place| (place, index)));
    }
}

fn places_of(row: &upload_tombstone::Model) -> impl Iterator<Item = i64> {
    row.positions.as_array().into_iter().flatten().filter_map(Value::as_i64)
}

/// Checks the tenant's tombstones, and adds the places of their sessions' events to `buried`. Returns `false` if one of the
/// sessions had its last event after the audit began: what it held at that moment is no longer known.
async fn check_tombstones(
    engine: &Engine,
    mut ids: Ids,
    began: &Beginning,
    buried: &mut Buried,
    report: &mut VerifyReport,
) -> Result<bool> {
    let mut is_whole = true;
    loop {
        let page = rows::tombstones(&engine.db.snapshot().await?, ids, TOMBSTONES_AT_ONCE).await?;
        let more = page.len() as u64 == TOMBSTONES_AT_ONCE;
        ids.after = page.last().map(|last| last.upload_session_id);
        for row in page {
            report.tombstones += 1;
            if engine.keys.tombstone(&row) != row.mac {
                report.add(Finding {
                    tenant_id: Some(row.tenant_id),
                    upload_session_id: Some(row.upload_session_id),
                    seq: None,
                    what: "the tombstone of the deleted session is not as it was recorded".to_owned(),
                });
            }
            is_whole &= places_of(&row).all(|place| place <= began.last_position);
            buried.add(&row);
        }
        if !more {
            return Ok(is_whole);
        }
    }
}

/// Checks that every place from 1 to the last one given when the audit began belongs to exactly one event, of a session
/// that exists or was deleted.
async fn check_order(engine: &Engine, began: &Beginning, mut buried: Buried, report: &mut VerifyReport) -> Result<()> {
    buried.places.sort_unstable();
    let mut of_tombstones = buried.places.iter().copied().peekable();
    let (mut missing, mut doubles) = (Vec::new(), Vec::new());
    let end = end_of_order(engine, began, &buried).await?;
    for block in 0..=pruned::block_of(end) {
        let (first, last) = ((block * BLOCK).max(1), end.min((block + 1) * BLOCK - 1));
        let at = engine.db.snapshot().await?;
        let mut events = rows::positions(&at, first, last).await?.into_iter().peekable();
        let gone = rows::pruned(&at, block).await?;
        drop(at);
        if gone.as_ref().is_some_and(|row| !pruned::is_sealed(&engine.keys, row)) {
            report.add_to_order(format!(
                "the pruned places of deleted sessions from place {first} on are not as they were recorded"
            ));
        }
        for place in first..=last {
            let mut taken = usize::from(gone.as_ref().is_some_and(|row| pruned::holds(row, place)));
            while events.next_if(|event| *event == place).is_some() {
                taken += 1;
            }
            while of_tombstones.next_if(|(buried, _)| *buried <= place).is_some_and(|(buried, _)| buried == place) {
                taken += 1;
            }
            match taken {
                0 => missing.push(place),
                1 => {}
                _ => doubles.push(place),
            }
        }
    }
    let missing = not_deleted_since(engine, began, missing).await?;
    let last_given = (end < began.last_position).then_some((end + 1, began.last_position));
    for (from, to) in in_rows(&missing).into_iter().chain(last_given) {
        report.add_to_order(self::missing(from, to));
    }
    for place in doubles {
        if is_double(engine, &buried, place).await? {
            report.add_to_order(format!("the place {place} in the order of all events is taken twice"));
        }
    }
    let at = engine.db.snapshot().await?;
    let (highest, last) = (rows::highest_position(&at).await?, rows::last_position(at.conn()).await?);
    if highest > last {
        report.add_to_order(format!("the last place that was given is {last}, but an event has the place {highest}"));
    }
    Ok(())
}

/// Returns the last place of which anything is left, at most the last one that was given. The limit keeps the audit from
/// counting for ever if somebody has set the feed far ahead.
async fn end_of_order(engine: &Engine, began: &Beginning, buried: &Buried) -> Result<i64> {
    let block = rows::last_block(&engine.db.snapshot().await?).await?;
    let pruned = block.map_or(0, |block| block.saturating_add(1).saturating_mul(BLOCK) - 1);
    let buried = buried.places.last().map_or(0, |(place, _)| *place);
    Ok(began.highest_position.max(pruned).max(buried).min(began.last_position))
}

/// Returns those of `places` that belong to no session deleted during the audit.
async fn not_deleted_since(engine: &Engine, began: &Beginning, mut places: Vec<i64>) -> Result<Vec<i64>> {
    let mut after: Option<upload_tombstone::Model> = None;
    while !places.is_empty() {
        let at = engine.db.snapshot().await?;
        let page = rows::tombstones_since(&at, began.at, after.as_ref(), TOMBSTONES_AT_ONCE).await?;
        let sealed = page.iter().filter(|row| engine.keys.tombstone(row) == row.mac);
        let explained: HashSet<i64> = sealed.flat_map(places_of).collect();
        places.retain(|place| !explained.contains(place));
        match page.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    Ok(places)
}

/// Returns whether a place is taken twice at one moment. During the audit an event's place may become a tombstone's, and
/// that one a bit in a block.
async fn is_double(engine: &Engine, buried: &Buried, place: i64) -> Result<bool> {
    let at = engine.db.snapshot().await?;
    let mut taken = rows::positions(&at, place, place).await?.len();
    let gone = rows::pruned(&at, pruned::block_of(place)).await?;
    taken += usize::from(gone.is_some_and(|row| pruned::holds(&row, place)));
    let first = buried.places.partition_point(|(buried, _)| *buried < place);
    for (_, index) in buried.places[first..].iter().take_while(|(buried, _)| *buried == place) {
        let Some((tenant, session)) = usize::try_from(*index).ok().and_then(|index| buried.tombstones.get(index))
        else {
            continue;
        };
        taken += usize::from(rows::has_tombstone(&at, *tenant, *session).await?);
    }
    Ok(taken > 1)
}

/// Returns the first and the last place of each run of consecutive places.
fn in_rows(places: &[i64]) -> Vec<(i64, i64)> {
    let mut rows: Vec<(i64, i64)> = Vec::new();
    for place in places {
        match rows.last_mut() {
            Some((_, to)) if *to + 1 == *place => *to = *place,
            _ => rows.push((*place, *place)),
        }
    }
    rows
}

fn missing(from: i64, to: i64) -> String {
    match to - from {
        0 => format!("no event has the place {from} in the order of all events: it was removed"),
        _ => format!("no event has a place from {from} to {to} in the order of all events: they were removed"),
    }
}
