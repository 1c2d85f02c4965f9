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

/// The number of UPLOADED assets whose jobs one run looks up; the next run continues after them. In a long outage any number
/// of assets may be waiting for their jobs.
const LOOKED_AT_MAX: usize = 5_000;
/// How many runs back to look for one that names the place to continue from.
const RUNS: u64 = 20;

/// An asset, by its session.
pub(super) type Place = (TenantId, SessionId);

/// Enqueues the promotion of assets that were completed before `before`, are still UPLOADED, and have no job to promote
/// them: all whose job is dead, found by those jobs, and a bounded number of the others. Returns the place from which the
/// next run continues.
///
/// # Errors
/// [`crate::error::Error::DbUnavailable`]. Work done before it stays done, and is counted in the run.
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
        // `given_up` has handled the assets with dead jobs.
        known.extend(jobs::rows::buried(engine, &keys).await?);
        again(engine, run, page, &known, report).await?;
        match after {
            // Continues from the beginning, if this run did not start there.
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

/// Returns the place that the last run reached, if it did not reach the end.
async fn last_place(engine: &Engine) -> Result<Option<Place>> {
    let runs = pass::runs(engine, Some(Pass::Reconcile), RUNS).await?;
    // The newest record may be of this run, and other runs may have been lost before they reported anything.
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

/// Enqueues the promotion of the session's asset, unless a job for it exists.
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
