//! The order of all events: every place belongs to one event, or to a session that was deleted.

use std::collections::HashSet;

use entity::{SessionId, TenantId, upload_tombstone};
use serde_json::Value;

use super::rows::{self, Ids};
use super::{Beginning, Finding, VerifyReport};
use crate::engine::Engine;
use crate::error::Result;
use crate::event::pruned::{self, BLOCK};
use crate::feed::rows::last_position;

const TOMBSTONES_AT_ONCE: u64 = 1_000;

/// The places that deleted sessions' events had, by their tombstones.
#[derive(Default)]
pub(super) struct Buried {
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
pub(super) async fn check_tombstones(
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
pub(super) async fn check(
    engine: &Engine,
    began: &Beginning,
    mut buried: Buried,
    report: &mut VerifyReport,
) -> Result<()> {
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
    let (highest, last) = (rows::highest_position(&at).await?, last_position(at.conn()).await?);
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
