use chrono::{DateTime, TimeDelta, Utc};
use entity::upload_session::Status;
use serde_json::json;
use tracing::{instrument, warn};

use super::Session;
use super::discard::{Left, clear_for_good};
use super::prune::prune_tombstones;
use super::retention::delete_past;
use super::rows::{Mark, Queue};
use super::sweep::{Fate, dealt_with, longest_call, sum, sweep};
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::Result;
use crate::event::{self, Note};
use crate::pass::{Report, Run};
use crate::tenant;

/// On top of the longest life of a URL and the longest call of our own.
const MARGIN: TimeDelta = TimeDelta::seconds(60);

/// Removes what ended sessions left: in the store, and in time their rows.
///
/// - FAILED and CANCELLED sessions: every upload and the object under the key, until the store says that there are none;
///   then `storage_cleared_at` is set and the tenant's bytes are given back, in one transaction with the event
///   `storage.clear`. A failed try is an event too, `storage.clear_failed`, and the next run tries again.
/// - COMPLETED sessions whose asset is served from elsewhere: the same, but the bytes stay the tenant's.
/// - FAILED and CANCELLED sessions cleared longer than `lifecycle.retention_secs` ago: their rows; see [`delete_past`].
/// - What was left of sessions deleted longer than `lifecycle.tombstone_secs` ago; see [`prune_tombstones`].
///
/// A session is left alone after its end for as long as a URL of its lives or a request of ours may be at the store, and a
/// minute more; `older_than` takes the place of this wait, and of nothing else.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] of the first that met it; the others were tried all the same. What was done is
/// done.
#[instrument(name = "session.cleanup", skip_all, fields(dry_run = run.options.dry_run))]
pub async fn cleanup(engine: &Engine, run: &Run) -> Result<Report> {
    let (now, lived) = (engine.clock.now(), engine.clock.lived());
    // Each has its turn, whatever the others meet: those that ask nobody but the database first, and the one that may be
    // longest, for which the store is asked, last, with all the time that is left.
    // What is deleted here is gone for good, so it goes by no clock that was put forward.
    let past = delete_past(engine, &run.share(4), lived).await;
    let pruned = prune_tombstones(engine, &run.share(3), lived).await;
    let clear = |session: Session| Box::pin(clear_session(engine, run, session, now));
    let moved = sweep(engine, &run.share(2), Queue::Unmoved, clear).await;
    let cleared = sweep(engine, run, Queue::Uncleared(now), clear).await;
    let (cleared, moved, past, pruned) = (cleared?, moved?, past?, pruned?);
    let details = json!({
        "cleared": dealt_with(&cleared),
        "moved": dealt_with(&moved),
        "rows_deleted": dealt_with(&past),
        "tombstones_pruned": dealt_with(&pruned),
    });
    Ok(sum(details, &[&cleared, &moved, &past, &pruned]))
}

async fn clear_session(engine: &Engine, run: &Run, session: Session, now: DateTime<Utc>) -> Result<Fate> {
    let wait = run.options.older_than.unwrap_or_else(|| wait(engine, &session));
    if ended_at(&session).is_none_or(|ended| now < ended + wait) {
        return Ok(Fate::NotDue);
    }
    if run.options.dry_run {
        return Ok(Fate::Found);
    }
    match clear_for_good(engine, &session).await {
        Ok(()) => record_cleared(engine, run, &session).await,
        Err(left) => {
            warn!(session.id = %session.id, error = %left, "the store could not be cleared; the next run tries again");
            record_failure(engine, run, &session, &left).await?;
            Ok(Fate::Failed)
        }
    }
}

/// How long after its end somebody may still be writing under the session's key, with a URL of its or by a call of ours.
fn wait(engine: &Engine, session: &Session) -> TimeDelta {
    let url_life = seconds(session.url_ttl_secs.unsigned_abs().into());
    url_life.max(longest_call(engine)) + MARGIN
}

fn ended_at(session: &Session) -> Option<DateTime<Utc>> {
    match session.status {
        Status::Initiating | Status::Uploading => None,
        Status::Completed => session.completed_at,
        Status::Failed => session.failed_at,
        Status::Cancelled => session.cancelled_at,
    }
}

/// Notes that nothing is left, and gives the bytes back where they became no asset's; once, whoever else is at it.
async fn record_cleared(engine: &Engine, run: &Run, session: &Session) -> Result<Fate> {
    let at = engine.clock.now();
    let note = Note { event: "storage.clear", actor: &run.actor, details: json!({}), at };
    let tx = engine.db.begin().await?;
    let Some(session) = event::record_marking(engine, &tx, session, &note, Mark::Cleared(at)).await? else {
        tx.rollback().await;
        return Ok(Fate::Skipped);
    };
    if session.status != Status::Completed {
        tenant::rows::settle(&tx, session.tenant_id, 0, -session.file_size).await?;
    }
    tx.commit().await?;
    Ok(Fate::Done)
}

async fn record_failure(engine: &Engine, run: &Run, session: &Session, left: &Left) -> Result<()> {
    let at = engine.clock.now();
    let details = json!({ "cause": left.to_string() });
    let note = Note { event: "storage.clear_failed", actor: &run.actor, details, at };
    let tx = engine.db.begin().await?;
    match event::record_marking(engine, &tx, session, &note, Mark::Tried(at)).await? {
        Some(_) => tx.commit().await,
        None => {
            tx.rollback().await;
            Ok(())
        }
    }
}
