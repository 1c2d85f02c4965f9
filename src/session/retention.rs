use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use entity::{SessionId, TenantId, upload_tombstone};
use serde_json::json;
use tracing::warn;

use super::Session;
use super::rows::{self, Queue};
use super::sweep::{Fate, sweep};
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::{Error, Result, with_causes};
use crate::event;
use crate::pass::{Report, Run};

/// The maximum number of sessions that one transaction deletes: some thousand rows and values, far below both databases'
/// limits.
const BATCH_MAX: u64 = 500;

/// Deletes the rows of FAILED and CANCELLED sessions that were cleared longer than `lifecycle.retention_secs` ago: session
/// and events, one batch per transaction. Leaves a tombstone for each session. A session with an event that has no place in
/// the global event order yet is left for the next run.
///
/// # Errors
/// [`Error::DbUnavailable`]. Earlier batches stay deleted.
pub(super) async fn delete_past(engine: &Engine, run: &Run, now: DateTime<Utc>) -> Result<Report> {
    let queue = Queue::Past(now - seconds(engine.settings.lifecycle.retention_secs));
    if run.options.dry_run {
        return sweep(engine, run, queue, |_| async { Ok(Fate::Found) }).await;
    }
    let mut report = Report::default();
    let mut after: Option<Session> = None;
    while !run.is_over() {
        let batch = match delete_batch(engine, queue, after.as_ref(), now).await {
            Ok(batch) => batch,
            Err(error @ Error::DbUnavailable(_)) => return Err(error),
            Err(error) => {
                // It is not known which session caused the error, nor where the next batch begins.
                warn!(error = with_causes(&error), "rows past their retention time could not be deleted");
                report.found += 1;
                report.failed += 1;
                report.name("rows past their retention time".to_owned(), &error.explained());
                break;
            }
        };
        let counts = Report {
            found: batch.found,
            done: batch.deleted,
            skipped: batch.found - batch.deleted,
            ..Report::default()
        };
        run.add(&counts);
        report.add(&counts);
        let Some(last) = batch.last else { break };
        after = Some(last);
    }
    Ok(report)
}

struct Batch {
    found: u64,
    deleted: u64,
    last: Option<Session>,
}

async fn delete_batch(engine: &Engine, queue: Queue, after: Option<&Session>, now: DateTime<Utc>) -> Result<Batch> {
    let limit = engine.settings.lifecycle.batch_rows.min(BATCH_MAX);
    let tx = engine.db.begin().await?;
    let page = rows::next_locked(&tx, queue, after, limit).await?;
    let mut batch = Batch { found: page.len() as u64, deleted: 0, last: page.last().cloned() };
    let mut by_tenant: BTreeMap<TenantId, Vec<Session>> = BTreeMap::new();
    for session in page {
        by_tenant.entry(session.tenant_id).or_default().push(session);
    }
    for (tenant, sessions) in by_tenant {
        let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
        let mut positions = event::rows::positions_of(tx.conn(), tenant, &ids).await?;
        let tombstones: Vec<_> = sessions
            .into_iter()
            .filter_map(|session| {
                let positions = positions.remove(&session.id)?.into_iter().collect::<Option<Vec<i64>>>()?;
                Some(tombstone(engine, &session, &positions, now))
            })
            .collect();
        if tombstones.is_empty() {
            continue;
        }
        let ids: Vec<SessionId> = tombstones.iter().map(|tombstone| tombstone.upload_session_id).collect();
        batch.deleted += ids.len() as u64;
        event::rows::delete(&tx, tenant, &ids).await?;
        rows::delete_with_tombstones(&tx, tenant, tombstones).await?;
    }
    tx.commit().await?;
    Ok(batch)
}

fn tombstone(engine: &Engine, session: &Session, positions: &[i64], now: DateTime<Utc>) -> upload_tombstone::Model {
    let mut tombstone = upload_tombstone::Model {
        tenant_id: session.tenant_id,
        upload_session_id: session.id,
        status: session.status,
        event_seq: session.event_seq,
        chain_head: session.chain_head.clone(),
        positions: json!(positions),
        deleted_at: now,
        mac: vec![],
    };
    tombstone.mac = engine.keys.tombstone(&tombstone);
    tombstone
}
