//! Each session: its chain, the places of its events, its columns and its asset.

use std::iter::Peekable;

use entity::upload_session::Status;
use entity::{SessionId, asset, upload_event, upload_session};
use serde_json::Value;

use super::rows::{self, Ids};
use super::{Beginning, Finding, VerifyReport};
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::rows::last_position;
use crate::keys::{Entry, Keys};
use crate::session::state::Event;
use crate::storage::Location;
use crate::tenant::{self, Usage};

const SESSIONS_AT_ONCE: u64 = 500;

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
        self.live_sessions += i64::from(!status.is_terminal());
        let is_there = status == Status::Completed || !is_cleared;
        self.bytes += if is_there { i128::from(session.file_size) } else { 0 };
    }
}

/// Checks sessions of a tenant, and returns what they held when the audit began.
pub(super) async fn check(
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
        let last_position = last_position(at.conn()).await?;
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
        let complete = named(events, Event::Complete.name());
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
        let at = Location::upload(&session.bucket, session.id);
        let key = said(ready, "object_key").unwrap_or(at.key);
        self.unless(asset.object_key == key, None, "the asset's object_key is not the recorded one");
        self.unless(asset.bucket == at.bucket, None, "the asset's bucket is not the session's");
    }
}

/// Returns the first event of that name.
fn named<'a>(events: &'a [upload_event::Model], name: &str) -> Option<&'a upload_event::Model> {
    events.iter().find(|event| event.event == name)
}
