use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use entity::upload_tombstone;
use serde_json::Value;
use tracing::warn;

use crate::clock::seconds;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::event::{self, pruned};
use crate::pass::{Report, Run};

/// Tombstones that one transaction prunes.
const BATCH_MAX: u64 = 500;

/// Deletes the tombstones of sessions that were deleted longer than `lifecycle.tombstone_secs` ago, a batch in a
/// transaction. The places that their events had in the order of all are kept, a bit for each. What is not as this
/// server sealed it is left for the audit.
///
/// # Errors
/// [`Error::DbUnavailable`]. The batches before stay deleted.
pub(super) async fn prune_tombstones(engine: &Engine, run: &Run, now: DateTime<Utc>) -> Result<Report> {
    let before = now - seconds(engine.settings.lifecycle.tombstone_secs);
    let mut report = Report::default();
    let mut after: Option<upload_tombstone::Model> = None;
    while !run.is_over() {
        let batch = match prune_batch(engine, run, before, after.as_ref()).await {
            Ok(batch) => batch,
            Err(error @ Error::DbUnavailable(_)) => return Err(error),
            Err(error) => {
                warn!(%error, "tombstones that are past their time could not be deleted");
                report.found += 1;
                report.failed += 1;
                report.name("tombstones past their time".to_owned(), &error.explained());
                break;
            }
        };
        let Some((last, counts)) = batch else { break };
        run.add(&counts);
        report.add(&counts);
        after = Some(last);
    }
    Ok(report)
}

async fn prune_batch(
    engine: &Engine,
    run: &Run,
    before: DateTime<Utc>,
    after: Option<&upload_tombstone::Model>,
) -> Result<Option<(upload_tombstone::Model, Report)>> {
    let limit = engine.settings.lifecycle.batch_rows.min(BATCH_MAX);
    let tx = engine.db.begin().await?;
    let page = event::rows::old_tombstones(&tx, before, after, limit).await?;
    let Some(last) = page.last().cloned() else { return Ok(None) };
    let found = page.len() as u64;
    if run.options.dry_run {
        return Ok(Some((last, Report { found, ..Report::default() })));
    }
    // In the order of the blocks: two that were at it at once would wait for each other.
    let mut blocks = BTreeMap::new();
    for block in page.iter().flat_map(places).map(pruned::block_of) {
        blocks.entry(block).or_insert(None);
    }
    for (block, row) in &mut blocks {
        // There first: a lock on a row that does not exist keeps nobody out, and of two that began the same block, the
        // second would put its places over those of the first.
        let mut empty = pruned::empty(*block);
        pruned::seal(&engine.keys, &mut empty);
        event::rows::begin_pruned(&tx, empty).await?;
        let kept = event::rows::lock_pruned(&tx, *block).await?;
        *row = kept.filter(|kept| pruned::is_sealed(&engine.keys, kept));
    }
    let mut gone = Vec::new();
    for tombstone in &page {
        let of_blocks: Vec<(i64, i64)> = places(tombstone).map(|place| (pruned::block_of(place), place)).collect();
        let is_whole = of_blocks.iter().all(|(block, _)| blocks.get(block).is_some_and(Option::is_some));
        if !is_whole || engine.keys.tombstone(tombstone) != tombstone.mac {
            warn!(session.id = %tombstone.upload_session_id, "a tombstone is not as it was recorded, and is left");
            continue;
        }
        for (block, place) in of_blocks {
            if let Some(Some(row)) = blocks.get_mut(&block) {
                pruned::add(row, place);
            }
        }
        gone.push((tombstone.tenant_id, tombstone.upload_session_id));
    }
    if gone.is_empty() {
        // No block stays behind that has nothing in it.
        tx.rollback().await;
    } else {
        for mut row in blocks.into_values().flatten() {
            pruned::seal(&engine.keys, &mut row);
            event::rows::keep_pruned(&tx, row).await?;
        }
        event::rows::delete_tombstones(&tx, &gone).await?;
        tx.commit().await?;
    }
    let done = gone.len() as u64;
    Ok(Some((last, Report { found, done, failed: found - done, ..Report::default() })))
}

/// The places that a deleted session's events had.
fn places(tombstone: &upload_tombstone::Model) -> impl Iterator<Item = i64> {
    tombstone.positions.as_array().into_iter().flatten().filter_map(Value::as_i64)
}
