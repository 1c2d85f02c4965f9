use chrono::{DateTime, TimeDelta, Utc};
use entity::upload_session::Status;
use serde_json::json;
use tracing::{instrument, warn};

use super::Session;
use super::discard::{Left, clear_for_good};
use super::prune::prune_tombstones;
use super::retention::delete_past;
use super::rows::Queue;
use super::sweep::{Fate, dealt_with, longest_call, sum, sweep};
use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::Result;
use crate::event::rows::Mark;
use crate::event::{self, Note};
use crate::pass::{Report, Run};
use crate::tenant;

/// Added to the lifetime of a URL, or to our longest call to the store if that takes longer.
const MARGIN: TimeDelta = TimeDelta::seconds(60);

/// Removes what ended sessions left: first in the store, later in the database.
///
/// - FAILED and CANCELLED sessions: removes every upload and the object under the key, until the store reports none. Then
///   one transaction sets `storage_cleared_at`, returns the bytes to the tenant's quota, and records the event
///   `storage.clear`. A failed attempt is recorded as `storage.clear_failed`, and the next run tries again.
/// - COMPLETED sessions whose asset is served from its own key: the same, but the bytes still count for the tenant.
/// - FAILED and CANCELLED sessions cleared longer than `lifecycle.retention_secs` ago: deletes the rows; see
///   [`delete_past`].
/// - Sessions deleted longer than `lifecycle.tombstone_secs` ago: deletes the tombstones; see [`prune_tombstones`].
///
/// After its end, a session is left alone for as long as one of its URLs may be valid or one of our calls to the store may
/// be running, and one minute more. `older_than` replaces this wait, and nothing else.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`] if any step met it; the other steps were still tried. Work done before it stays
/// done.
#[instrument(name = "session.cleanup", skip_all, fields(dry_run = run.options.dry_run))]
pub async fn cleanup(engine: &Engine, run: &Run) -> Result<Report> {
    let (now, steady_now) = (engine.clock.now(), engine.clock.steady_now());
    // Each step runs, even if another one fails. The steps that need only the database come first. The step that may take
    // longest, because it asks the store, comes last and has all the time that is left.
    // These deletions are final, so they use the clock that does not move faster when the wall clock is set forward.
    let past = delete_past(engine, &run.share(4), steady_now).await;
    let pruned = prune_tombstones(engine, &run.share(3), steady_now).await;
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

/// Returns how long after the session's end something may still be written under its key, with one of its URLs or by one of
/// our calls.
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

/// Records that the store is clear and returns the bytes to the quota unless they became an asset. Only the first of several
/// callers does.
async fn record_cleared(engine: &Engine, run: &Run, session: &Session) -> Result<Fate> {
    let at = engine.clock.now();
    let note = Note { event: "storage.clear", actor: &run.actor, details: json!({}), at };
    let tx = engine.db.begin().await?;
    let Some(session) = event::record_marking(engine, &tx, session, &note, Mark::Cleared(at)).await? else {
        tx.rollback().await;
        return Ok(Fate::Skipped);
    };
    if session.status != Status::Completed {
        tenant::rows::adjust_usage(&tx, session.tenant_id, 0, -session.file_size).await?;
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
