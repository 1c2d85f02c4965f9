use chrono::{DateTime, TimeDelta, Utc};
use entity::upload_session::FailureReason;
use serde_json::json;
use tracing::instrument;

use super::complete::{Finished, finish};
use super::lost::must_be_lost;
use super::rows::{self, Queue};
use super::sweep::{Fate, dealt_with, sum, sweep};
use super::{Change, Guard, Outcome, Session, location, transition};
use crate::caller::Actor;
use crate::clock::{believed, seconds};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pass::{Report, Run};

/// A `Date` header has whole seconds, and takes some time to arrive: clocks that differ by less cannot be told apart.
const SAME_CLOCK: TimeDelta = TimeDelta::seconds(2);

/// Why a session should end, unless it has activity after all.
#[derive(Clone, Copy, Debug)]
struct End {
    reason: FailureReason,
    guard: Guard,
    /// Bytes that arrived in the store after this time, by our clock, are activity. `None`: nothing keeps the session alive.
    since: Option<DateTime<Utc>>,
}

/// Fails the sessions that nobody will finish: UPLOADING sessions past their `expires_at` (`expired`), those without
/// activity for `lifecycle.abandoned_after_secs` (`abandoned`), and INITIATING sessions older than
/// `lifecycle.initiating_after_secs` (`storage_error`). The age of an INITIATING session restarts when its store does not
/// answer. `older_than` replaces the last two limits.
///
/// A client that has its URLs, or an S3 client of its own, need not contact this server. So the store is asked before an
/// UPLOADING session is failed, and again right before the change. A part or an object that arrived since counts as
/// activity (skipped). If the store does not answer, or its answers contradict each other, the session stays as it is
/// (failed), for the next run. Past its longest lifetime a session ends, even if bytes still arrive. A session with an
/// intent to complete is completed if its bytes are all in the store.
///
/// A wall clock that is set forward while the process runs does not make sessions older. One that is set back makes them
/// younger.
///
/// Two runs may work at once, and a client may come back at any moment: each UPDATE repeats its time condition in its WHERE
/// clause. The store's data of a failed session is left to the cleanup, because only the store's answers say that there is
/// no activity.
///
/// # Errors
/// [`Error::DbUnavailable`] if any step met it; the other steps were still tried. Work done before it stays done.
#[instrument(name = "session.detect_abandoned", skip_all, fields(dry_run = run.options.dry_run))]
pub async fn detect_abandoned(engine: &Engine, run: &Run) -> Result<Report> {
    let now = engine.clock.steady_now();
    let lifecycle = &engine.settings.lifecycle;
    let before = |secs: u64| now - run.options.older_than.unwrap_or(seconds(secs));
    let (idle, stuck) = (before(lifecycle.abandoned_after_secs), before(lifecycle.initiating_after_secs));

    // Each step runs, even if another one fails.
    let expired = sweep(engine, &run.share(3), Queue::Expired(now), |session| async move {
        let end = End { reason: FailureReason::Expired, guard: Guard::ExpiredBy(now), since: None };
        let end = End { since: alive_since(engine, &session, now, idle), ..end };
        Box::pin(end_session(engine, run, session, end)).await
    })
    .await;
    let abandoned = sweep(engine, &run.share(2), Queue::Idle(idle), |session| async move {
        // The step before has handled expired sessions.
        if session.expires_at <= now {
            return Ok(Fate::NotDue);
        }
        let end = End { reason: FailureReason::Abandoned, guard: Guard::IdleSince(idle), since: Some(idle) };
        Box::pin(end_session(engine, run, session, end)).await
    })
    .await;
    let never_opened = sweep(engine, run, Queue::Initiating(stuck), |session| async move {
        // A caller tried to open it since, and its store did not answer.
        if session.last_activity_at >= stuck {
            return Ok(Fate::NotDue);
        }
        if is_in_its_life(engine, &session, now) {
            must_answer(engine, run, &session).await?;
        }
        let end = End { reason: FailureReason::StorageError, guard: Guard::StuckSince(stuck), since: None };
        Box::pin(end_session(engine, run, session, end)).await
    })
    .await;

    let (expired, abandoned, never_opened) = (expired?, abandoned?, never_opened?);
    let details = json!({
        "expired": dealt_with(&expired),
        "abandoned": dealt_with(&abandoned),
        "storage_error": dealt_with(&never_opened),
    });
    Ok(sum(details, &[&expired, &abandoned, &never_opened]))
}

/// Returns the time after which arriving bytes keep an expired session alive; `None` past its longest lifetime.
fn alive_since(engine: &Engine, session: &Session, now: DateTime<Utc>, idle: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let expires_after = seconds(engine.settings.sessions.expires_after_secs);
    is_in_its_life(engine, session, now).then(|| idle.max(now - expires_after))
}

fn is_in_its_life(engine: &Engine, session: &Session, now: DateTime<Utc>) -> bool {
    now < session.created_at + seconds(engine.settings.sessions.max_lifetime_secs)
}

/// Asks the store about a session that was never opened. If the store does not answer, the client is not at fault, and
/// failing the session would use up the client's reference: the session's age restarts.
async fn must_answer(engine: &Engine, run: &Run, session: &Session) -> Result<()> {
    let Err(error) = engine.storage.list_uploads(&location(session)).await else { return Ok(()) };
    if !run.options.dry_run {
        rows::touch_initiating(&engine.db, session, engine.clock.now()).await?;
    }
    Err(error.into())
}

async fn end_session(engine: &Engine, run: &Run, session: Session, end: End) -> Result<Fate> {
    if is_alive(engine, run, &session, end.since).await? {
        return Ok(Fate::Skipped);
    }
    if run.options.dry_run {
        return Ok(Fate::Found);
    }
    if let Some(by) = session.completing_by.clone().map(Actor::User) {
        match finish(engine, &session, &by).await {
            Ok(Finished::Made(_) | Finished::Ended(_)) => return Ok(Fate::Skipped),
            Ok(Finished::Failed(_)) => return Ok(Fate::Done),
            Err(Error::UploadIncomplete { .. } | Error::PartsMismatch(_)) => {}
            // Past its longest lifetime nothing keeps it alive, not even a failing store.
            Err(Error::Storage(_)) if end.since.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    // One list of parts may be stale or incomplete.
    if is_alive(engine, run, &session, end.since).await? {
        return Ok(Fate::Skipped);
    }
    let change = Change::fail(&run.actor, end.reason).guarded(end.guard);
    match transition(engine, &session, change, async |_, _| Ok(())).await? {
        Outcome::Moved(_) => Ok(Fate::Done),
        Outcome::Already(_) | Outcome::Refused(_) | Outcome::GuardFailed(_) => Ok(Fate::Skipped),
    }
}

/// Asks the store once whether bytes arrived after `since`, and records that as activity, except in a dry run. `false` if
/// `since` is `None`.
async fn is_alive(engine: &Engine, run: &Run, session: &Session, since: Option<DateTime<Utc>>) -> Result<bool> {
    let Some(since) = since else { return Ok(false) };
    let Some(arrived) = last_arrival(engine, session, since).await? else { return Ok(false) };
    if !run.options.dry_run {
        rows::touch_as_of(&engine.db, session, &engine.settings.sessions, arrived).await?;
    }
    Ok(true)
}

/// Returns when bytes last arrived in the store, by our clock, if that was after `since`.
async fn last_arrival(engine: &Engine, session: &Session, since: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let activity = engine.storage.activity(&location(session), session.multipart_upload_id.as_deref()).await?;
    if !activity.is_known {
        must_be_lost(engine, session, session.completing_at).await?;
    }
    let ahead = ahead(engine.clock.now(), activity.now);
    // A time in the future counts as now.
    let latest = engine.clock.steady_now();
    Ok(activity.last.map(|last| (last - ahead).min(latest)).filter(|last| *last > since))
}

/// Returns how far the store's clock is ahead of ours. The unknown fraction of a second is interpreted in favour of bytes
/// that arrived. So is a `Date` so far ahead that the store would not accept our signatures.
fn ahead(our_now: DateTime<Utc>, store_now: DateTime<Utc>) -> TimeDelta {
    let ahead = believed(store_now, our_now) - our_now;
    if -SAME_CLOCK < ahead && ahead <= TimeDelta::zero() { TimeDelta::zero() } else { ahead }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::clock::CLOCKS_DIFFER_MAX;

    #[test]
    fn a_clock_that_differs_by_less_than_can_be_told_is_ours() {
        let at = |millis: i64| DateTime::from_timestamp_millis(1_800_000_000_000 + millis).unwrap();
        assert_eq!(ahead(at(0), at(0)), TimeDelta::zero());
        assert_eq!(ahead(at(900), at(0)), TimeDelta::zero());
        assert_eq!(ahead(at(1_300), at(0)), TimeDelta::zero());
        assert_eq!(ahead(at(2_000), at(0)), TimeDelta::seconds(-2));
        assert_eq!(ahead(at(0), at(3_600_000)), TimeDelta::hours(1));
        assert_eq!(ahead(at(500), at(1_000)), TimeDelta::milliseconds(500));
        assert_eq!(ahead(at(0), at(25 * 3_600_000)), CLOCKS_DIFFER_MAX, "such a store would refuse our signatures");
        assert_eq!(ahead(at(25 * 3_600_000), at(0)), TimeDelta::hours(-25));
    }
}
