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

/// The maximum number of tombstones that one transaction prunes.
const BATCH_MAX: u64 = 500;

/// Deletes the tombstones of sessions that were deleted longer than `lifecycle.tombstone_secs` ago, one batch per
/// transaction. The places of their events in the global event order are kept, one bit each. Tombstones whose seal, or whose
/// block's seal, does not match are left for the audit.
///
/// # Errors
/// [`Error::DbUnavailable`]. Earlier batches stay deleted.
pub(super) async fn prune_tombstones(engine: &Engine, run: &Run, now: DateTime<Utc>) -> Result<Report> {
    let before = now - seconds(engine.settings.lifecycle.tombstone_secs);
    let mut report = Report::default();
    let mut after: Option<upload_tombstone::Model> = None;
    while !run.is_over() {
        let batch = match prune_batch(engine, run, before, after.as_ref()).await {
            Ok(batch) => batch,
            Err(error @ Error::DbUnavailable(_)) => return Err(error),
            Err(error) => {
                warn!(%error, "tombstones past their retention time could not be deleted");
                report.found += 1;
                report.failed += 1;
                report.name("tombstones past their retention time".to_owned(), &error.explained());
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
    // In the order of the blocks, so that two concurrent runs do not deadlock.
    let mut blocks = BTreeMap::new();
    for block in page.iter().flat_map(places).map(pruned::block_of) {
        blocks.entry(block).or_insert(None);
    }
    for (block, row) in &mut blocks {
        // Inserted first, because a row that does not exist cannot be locked: of two runs that begin the same block, the
        // second would overwrite the places of the first.
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
            warn!(session.id = %tombstone.upload_session_id, "a tombstone or its block has a wrong seal and is left");
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
        // No empty block stays behind.
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

/// Returns the places that a deleted session's events had in the global event order.
fn places(tombstone: &upload_tombstone::Model) -> impl Iterator<Item = i64> {
    tombstone.positions.as_array().into_iter().flatten().filter_map(Value::as_i64)
}
