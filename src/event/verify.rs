//! Whether the record of what happened is as this server wrote it.

use std::iter::Peekable;

use entity::upload_session::Status;
use entity::{SessionId, TenantId, asset, upload_event, upload_session};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::Keys;
use super::chain::Entry;
use super::rows::{self, Ids};
use crate::action;
use crate::database::Snapshot;
use crate::engine::Engine;
use crate::error::Result;
use crate::session::{location, state};
use crate::tenant::{self, Usage};

const SESSIONS_AT_ONCE: u64 = 500;
const TOMBSTONES_AT_ONCE: u64 = 1_000;
const POSITIONS_AT_ONCE: u64 = 10_000;
/// Findings that are told one by one; the rest is counted. With a wrong key every session is one.
const FINDINGS_MAX: usize = 1_000;

/// What to look at; empty means all. Only all of it can say that no whole session is missing, and covers what operators
/// did.
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

/// What a verification has looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    pub sessions: u64,
    pub events: u64,
    /// Deleted sessions of which a row says that there was one.
    pub tombstones: u64,
    /// Places in the order of all events; `None` where only a part was looked at.
    pub positions: Option<i64>,
    /// What operators did; `None` where only a part was looked at.
    pub actions: Option<u64>,
    /// How many findings there are.
    pub found: u64,
    /// The first 1,000.
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

/// Computes every chain of events anew and compares it with what is stored, and what is stored with what it says; that of
/// the operators' actions too.
///
/// All reads are of one moment, so a server may go on working meanwhile. Needs memory for a few hundred sessions, 8 bytes
/// for each event of a deleted one, and all tenants with their brands. `progress` is called now and then.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] and [`crate::error::Error::Db`]: it was not looked at to the end.
pub async fn verify(engine: &Engine, scope: &Scope, mut progress: impl FnMut(&VerifyReport)) -> Result<VerifyReport> {
    let at = engine.db.snapshot().await?;
    let mut report = VerifyReport::default();
    let last_position = rows::last_position(at.conn()).await?;
    let mut buried = Vec::new();
    for tenant in rows::tenants(&at, scope.tenant).await? {
        // One session is all ids after the one before it, up to it.
        let one = scope.session;
        let before = one.map(|id| SessionId(Uuid::from_u128(id.0.as_u128().saturating_sub(1))));
        let ids = Ids { tenant, after: before, until: one };
        check_tenant(engine, &at, ids, last_position, &mut report, &mut progress).await?;
        check_tombstones(engine, &at, ids, &mut buried, &mut report).await?;
    }
    if *scope == Scope::default() {
        check_order(&at, last_position, buried, &mut report).await?;
        report.positions = Some(last_position);
        let mut tell = |tenant_id, what| report.add(Finding { tenant_id, upload_session_id: None, seq: None, what });
        let actions = action::check(engine, &at, &mut tell).await?;
        report.actions = Some(actions);
    }
    Ok(report)
}

async fn check_tenant(
    engine: &Engine,
    at: &Snapshot,
    mut ids: Ids,
    last_position: i64,
    report: &mut VerifyReport,
    progress: &mut impl FnMut(&VerifyReport),
) -> Result<()> {
    let is_whole = ids.until.is_none();
    let mut held = Usage::default();
    loop {
        let sessions = rows::sessions(at, ids, SESSIONS_AT_ONCE).await?;
        for session in &sessions {
            held.live_sessions += i64::from(!state::is_terminal(session.status));
            let is_there = session.status == Status::Completed || session.storage_cleared_at.is_none();
            held.bytes += if is_there { session.file_size } else { 0 };
        }
        let more = sessions.last().filter(|_| sessions.len() as u64 == SESSIONS_AT_ONCE).map(|last| last.id);
        // Up to the last one of the page, or to the end: so that no event lies between two pages.
        let page = Ids { until: more.or(ids.until), ..ids };
        let events = rows::of_sessions(at, page).await?;
        let assets = rows::assets_of_sessions(at, page).await?;
        check_sessions(&engine.keys, &sessions, events, &assets, last_position, report);
        progress(report);
        match more {
            Some(last) => ids.after = Some(last),
            None => break,
        }
    }
    if is_whole && tenant::rows::usage(at.conn(), ids.tenant).await? != held {
        report.add(Finding {
            tenant_id: Some(ids.tenant),
            upload_session_id: None,
            seq: None,
            what: "what the tenant is said to hold is not the sum of what it holds".to_owned(),
        });
    }
    Ok(())
}

/// `events` are those of all these sessions and of any between them, both in order.
fn check_sessions(
    keys: &Keys,
    sessions: &[upload_session::Model],
    events: Vec<upload_event::Model>,
    assets: &[asset::Model],
    last_position: i64,
    report: &mut VerifyReport,
) {
    let mut events = events.into_iter().peekable();
    for session in sessions {
        while let Some(stray) = events.next_if(|event| event.upload_session_id < session.id) {
            report.add_stray(&stray);
        }
        let own = take_own(&mut events, session.id);
        report.sessions += 1;
        report.events += own.len() as u64;
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

/// One session under the eye.
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

    /// From the first event to the head on the session's row.
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
            self.found(None, format!("the session counts {counts} events and has {has}"));
        } else if session.chain_head != head {
            self.found(None, "the chain does not end where the session's row says");
        }
    }

    /// Places grow with the numbers, and the last events alone have none yet.
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
                "the event has a place in the order of all, the one before has none",
            );
            self.unless(position > before, Some(event.seq), "the event's place is before that of the one before");
            self.unless(position <= last_position, Some(event.seq), "the event's place was never given");
            before = position;
        }
    }

    /// What the session's row says against what its events say.
    fn columns(&mut self, events: &[upload_event::Model]) {
        let session = self.session;
        let mut status = None;
        let mut version = 0;
        for event in events {
            self.unless(
                event.from_status == status,
                Some(event.seq),
                "the event does not start where the last one led",
            );
            version += i32::from(event.to_status != status);
            status = event.to_status;
        }
        self.unless(status == Some(session.status), None, "the session's status is not where its events led");
        self.unless(version == session.version, None, "the session's version is not the count of its changes");

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
            self.unless(first.actor == session.created_by, None, "the session's created_by did not open it");
            self.unless(first.at == session.created_at, None, "the session's created_at is not when it was opened");
        }
        let when =
            |to: Status| events.iter().find(|event| event.to_status == Some(to) && event.from_status != Some(to));
        let ends = [
            (Status::Completed, session.completed_at, "completed_at"),
            (Status::Failed, session.failed_at, "failed_at"),
            (Status::Cancelled, session.cancelled_at, "cancelled_at"),
        ];
        for (to, at, name) in ends {
            self.unless(when(to).map(|event| event.at) == at, None, &format!("the session's {name} is of no event"));
        }
        // Bytes of an ended session count until it is cleared.
        let cleared = named(events, "storage.clear").map(|event| event.at);
        self.unless(cleared == session.storage_cleared_at, None, "the session's storage_cleared_at is of no event");
        // Servers of before knew the event and not the mark.
        let is_of_event = |at| events.iter().any(|event| event.event == "storage.clear_failed" && event.at == at);
        let tried = session.clear_failed_at.is_none_or(is_of_event);
        self.unless(tried, None, "the session's clear_failed_at is of no event");
        let reason = when(Status::Failed).and_then(|event| event.reason);
        self.unless(reason == session.failure_reason, None, "the session's failure_reason is not its event's");
        let upload = when(Status::Uploading).and_then(|event| event.details.get("multipart_upload_id")?.as_str());
        self.unless(
            upload == session.multipart_upload_id.as_deref(),
            None,
            "the session's multipart_upload_id is not what it was opened with",
        );
    }

    /// The asset is there if and only if the session is COMPLETED, and is what was completed.
    fn asset(&mut self, events: &[upload_event::Model], asset: Option<&asset::Model>) {
        let session = self.session;
        let completed = session.status == Status::Completed;
        let Some(asset) = asset else {
            self.unless(!completed, None, "the session is COMPLETED and has no asset");
            return;
        };
        self.unless(completed, None, "the session has an asset and is not COMPLETED");
        self.unless(asset.id == session.asset_id, None, "the asset is not the one that the session has reserved");
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
        self.unless(asset.status == status, None, "the asset's status is not where its events led");
        self.unless(asset.ready_at == ready.map(|event| event.at), None, "the asset's ready_at is of no event");
        self.unless(asset.failure == said(failed, "failure"), None, "the asset's failure is of no event");
        let at = location(session);
        let key = said(ready, "object_key").unwrap_or(at.key);
        self.unless(asset.object_key == key, None, "the asset's object_key is not where it was put");
        self.unless(asset.bucket == at.bucket, None, "the asset's bucket is not the session's");
    }
}

/// The first event of that name.
fn named<'a>(events: &'a [upload_event::Model], name: &str) -> Option<&'a upload_event::Model> {
    events.iter().find(|event| event.event == name)
}

/// Checks the tenant's tombstones, and adds to `buried` the places that their sessions' events had.
async fn check_tombstones(
    engine: &Engine,
    at: &Snapshot,
    mut ids: Ids,
    buried: &mut Vec<i64>,
    report: &mut VerifyReport,
) -> Result<()> {
    loop {
        let page = rows::tombstones(at, ids, TOMBSTONES_AT_ONCE).await?;
        let more = page.len() as u64 == TOMBSTONES_AT_ONCE;
        ids.after = page.last().map(|last| last.upload_session_id);
        for row in page {
            report.tombstones += 1;
            if engine.keys.tombstone(&row) != row.mac {
                report.add(Finding {
                    tenant_id: Some(row.tenant_id),
                    upload_session_id: Some(row.upload_session_id),
                    seq: None,
                    what: "what is left of the deleted session is not as it was recorded".to_owned(),
                });
            }
            let places = row.positions.as_array().into_iter().flatten();
            buried.extend(places.filter_map(Value::as_i64));
        }
        if !more {
            return Ok(());
        }
    }
}

/// Every place from 1 to the last one is an event's or was a deleted session's, exactly once.
async fn check_order(at: &Snapshot, last: i64, mut buried: Vec<i64>, report: &mut VerifyReport) -> Result<()> {
    buried.sort_unstable();
    let mut buried = buried.into_iter().peekable();
    let mut order = Order { next: 1 };
    let mut after = 0;
    loop {
        let page = rows::positions(at, after, POSITIONS_AT_ONCE).await?;
        for place in &page {
            while let Some(older) = buried.next_if(|older| older <= place) {
                order.take(older, report);
            }
            order.take(*place, report);
        }
        match page.last() {
            Some(last) => after = *last,
            None => break,
        }
    }
    for older in buried {
        order.take(older, report);
    }
    if order.next <= last {
        report.add_to_order(missing(order.next, last));
    } else if order.next > last + 1 {
        report
            .add_to_order(format!("the last place that was given is {last}, and there is a place {}", order.next - 1));
    }
    Ok(())
}

/// Counts along.
struct Order {
    /// The place that should come now.
    next: i64,
}

impl Order {
    fn take(&mut self, place: i64, report: &mut VerifyReport) {
        if place < self.next {
            report.add_to_order(format!("the place {place} in the order of all events is taken twice"));
            return;
        }
        if place > self.next {
            report.add_to_order(missing(self.next, place - 1));
        }
        self.next = place + 1;
    }
}

fn missing(from: i64, to: i64) -> String {
    match to - from {
        0 => format!("no event has the place {from} in the order of all events: it was removed"),
        _ => format!("no event has a place from {from} to {to} in the order of all events: they were removed"),
    }
}
