//! The audit: verifies that the recorded history is as this server wrote it, session by session (`sessions.rs`), in the order
//! of all events (`order.rs`), and in what operators did (`actions.rs`).

mod actions;
mod order;
mod rows;
mod sessions;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use entity::{SessionId, TenantId, upload_event};
use serde::Serialize;
use uuid::Uuid;

use crate::clock::CLOCKS_DIFFER_MAX;
use crate::engine::Engine;
use crate::error::Result;
use crate::feed::rows::last_position;
use crate::tenant::{self, Usage};
use rows::Ids;

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
    let mut buried = order::Buried::default();
    for (tenant, held) in tenants {
        // One session is the range above the id before its own, up to its own.
        let one = scope.session;
        let before = one.map(|id| SessionId(Uuid::from_u128(id.0.as_u128().saturating_sub(1))));
        let ids = Ids { tenant, after: before, until: one };
        let counted = sessions::check(engine, ids, &began, &mut report, &mut progress).await?;
        let is_whole = order::check_tombstones(engine, ids, &began, &mut buried, &mut report).await?;
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
        order::check(engine, &began, buried, &mut report).await?;
        report.positions = Some(began.last_position);
        let mut tell = |tenant_id, what| report.add(Finding { tenant_id, upload_session_id: None, seq: None, what });
        let actions = actions::check(engine, &mut tell).await?;
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
            at: engine.clock.now().min(engine.clock.steady_now()) - CLOCKS_DIFFER_MAX,
            last_position: last_position(at.conn()).await?,
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
