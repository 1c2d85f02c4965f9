use std::collections::HashSet;

use chrono::{DateTime, Utc};
use entity::upload_session::Status;
use entity::{SessionId, TenantId};

use super::rows;
use super::sweep::{Fate, count};
use crate::asset::{self, PROMOTIONS, promoted_by, promotion_key};
use crate::engine::Engine;
use crate::error::Result;
use crate::jobs;
use crate::pass::{self, Pass, Report, Run};

/// Assets that are to be promoted of which one run looks whether their jobs are there; the next run goes on after them.
/// In a long outage there may be any number that have theirs.
const LOOKED_AT_MAX: usize = 5_000;
/// How many runs back one may be that says where to go on.
const RUNS: u64 = 20;

/// An asset, by its session.
pub(super) type Place = (TenantId, SessionId);

/// Has assets promoted that were completed before this, are UPLOADED still, and have no job to promote them: all whose
/// job was given up, found by those jobs, and of the others a bounded number. Returns where the next run goes on.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`]. What was done before is done, and counted in the run.
pub(super) async fn repromote(engine: &Engine, run: &Run, before: DateTime<Utc>) -> Result<(Report, Option<Place>)> {
    let mut report = Report::default();
    let outcome = look(engine, run, before, &mut report).await;
    run.add(&report);
    outcome.map(|next| (report, next))
}

async fn look(engine: &Engine, run: &Run, before: DateTime<Utc>, report: &mut Report) -> Result<Option<Place>> {
    given_up(engine, run, before, report).await?;
    jobless(engine, run, before, report).await
}

async fn given_up(engine: &Engine, run: &Run, before: DateTime<Utc>, report: &mut Report) -> Result<()> {
    let mut after = None;
    while !run.is_over() {
        let page = jobs::rows::dead(engine, &PROMOTIONS, after, engine.settings.lifecycle.batch_rows).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        let of: Vec<Place> = page.iter().filter_map(promoted_by).collect();
        let uploaded = asset::rows::list_uploaded_of(engine.db.search_conn(), before, &of).await?;
        let alive = jobs::rows::alive(engine, &keys(&uploaded)).await?;
        again(engine, run, uploaded, &alive, report).await?;
    }
    Ok(())
}

async fn jobless(engine: &Engine, run: &Run, before: DateTime<Utc>, report: &mut Report) -> Result<Option<Place>> {
    let limit = engine.settings.lifecycle.batch_rows;
    let mut after = last_place(engine).await?;
    let mut looked_at = 0;
    while !run.is_over() && looked_at < LOOKED_AT_MAX {
        let page = asset::rows::list_uploaded(engine.db.search_conn(), before, after, limit).await?;
        looked_at += page.len();
        let is_last = (page.len() as u64) < limit;
        let last = page.last().copied();
        let keys = keys(&page);
        let mut known = jobs::rows::alive(engine, &keys).await?;
        // Those had their turn.
        known.extend(jobs::rows::buried(engine, &keys).await?);
        again(engine, run, page, &known, report).await?;
        match after {
            // From the beginning, where this run did not begin there.
            Some(_) if is_last => after = None,
            None if is_last => return Ok(None),
            _ => after = last,
        }
    }
    Ok(after)
}

fn keys(assets: &[Place]) -> Vec<String> {
    assets.iter().map(|(_, session)| promotion_key(*session)).collect()
}

/// Where the last run came to, if not to the end.
async fn last_place(engine: &Engine) -> Result<Option<Place>> {
    let runs = pass::runs(engine, Some(Pass::Reconcile), RUNS).await?;
    // The newest may be the very run that this is, and others may have been lost before they reported anything.
    let reported = runs.iter().find(|run| !run.dry_run && run.details.get("promotions").is_some());
    Ok(reported.and_then(|run| serde_json::from_value(run.details["next_promotion"].clone()).ok()))
}

async fn again(
    engine: &Engine,
    run: &Run,
    assets: Vec<Place>,
    except: &HashSet<String>,
    report: &mut Report,
) -> Result<()> {
    for (tenant, session) in assets {
        if run.is_over() {
            break;
        }
        if !except.contains(&promotion_key(session)) {
            count(report, session, Status::Completed, promote_again(engine, run, tenant, session).await)?;
        }
    }
    Ok(())
}

/// Has the session's asset promoted, where no job is there to do it.
async fn promote_again(engine: &Engine, run: &Run, tenant: TenantId, session: SessionId) -> Result<Fate> {
    let Some(session) = rows::find(engine.db.conn(), tenant, session).await? else { return Ok(Fate::NotDue) };
    let job = asset::promotion(engine, &session);
    let tx = engine.db.begin().await?;
    if jobs::enqueue(engine, &tx, &job).await?.is_none() {
        tx.rollback().await;
        return Ok(Fate::NotDue);
    }
    if run.options.dry_run {
        tx.rollback().await;
        return Ok(Fate::Found);
    }
    jobs::rows::remove_dead(&tx, &job).await?;
    tx.commit().await?;
    Ok(Fate::Done)
}
