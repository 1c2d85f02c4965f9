use entity::upload_session::UploadType;
use serde_json::json;
use tracing::instrument;

use super::complete::{Finished, finish};
use super::discard::abort;
use super::repromote::repromote;
use super::rows::Queue;
use super::sweep::{Fate, dealt_with, grace, sum, sweep};
use super::{Change, Outcome, Session, location, open, transition};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pass::{Report, Run};

/// Records what the store has done and no row shows, because a process died or an answer was lost.
///
/// - An INITIATING session with an upload under its key is opened with that upload. Other uploads under the key are aborted.
/// - An UPLOADING session with an intent to complete is finished as [`super::complete`] does it, in the name of the user who
///   stored the intent.
/// - A COMPLETED session whose asset is still UPLOADED and has no promotion job, because its job died in an outage, gets a
///   new job that replaces dead ones. If very many assets are UPLOADED, some that have not even a dead job are left to the
///   next run, which continues from the place that the report names.
///
/// Sessions without an intent are left alone. A session that lacks bytes keeps its intent and is checked again by the next
/// run (skipped): only its caller can withdraw the intent, or be refused. `older_than` replaces the time during which a
/// request may still be working on a session.
///
/// # Errors
/// [`Error::DbUnavailable`] if any step met it; the other steps were still tried. Work done before it stays done.
#[instrument(name = "session.reconcile", skip_all, fields(dry_run = run.options.dry_run))]
pub async fn reconcile(engine: &Engine, run: &Run) -> Result<Report> {
    let grace = run.options.older_than.unwrap_or_else(|| grace(engine));
    let before = engine.clock.now() - grace;
    // Each step runs, even if another one fails.
    let opened =
        sweep(engine, &run.share(3), Queue::Initiating(before), |session| Box::pin(open_lost(engine, run, session)))
            .await;
    let finished =
        sweep(engine, &run.share(2), Queue::Completing(before), |session| Box::pin(finish_lost(engine, run, session)))
            .await;
    let promoted = repromote(engine, run, before).await;
    let (opened, finished, (promoted, next)) = (opened?, finished?, promoted?);
    let mut details = json!({
        "opened": dealt_with(&opened),
        "finished": dealt_with(&finished),
        "promotions": dealt_with(&promoted),
    });
    if let Some(place) = next {
        details["next_promotion"] = json!(place);
    }
    Ok(sum(details, &[&opened, &finished, &promoted]))
}

/// Opens a session with the upload that the store made for it.
async fn open_lost(engine: &Engine, run: &Run, session: Session) -> Result<Fate> {
    if session.upload_type == UploadType::Direct {
        return Ok(Fate::Skipped); // a direct session is opened when it is created
    }
    let mut uploads = open::uploads(engine, &location(&session)).await?.into_iter();
    let Some(upload_id) = uploads.next() else { return Ok(Fate::Skipped) };
    if run.options.dry_run {
        return Ok(Fate::Found);
    }
    let change = Change::open(&run.actor, Some(&upload_id));
    match transition(engine, &session, change, async |_, _| Ok(())).await? {
        Outcome::Moved(session) => {
            for other in uploads {
                abort(engine, &session, &run.actor, &other).await;
            }
            Ok(Fate::Done)
        }
        Outcome::Already(_) | Outcome::Refused(_) | Outcome::GuardFailed(_) => Ok(Fate::Skipped),
    }
}

async fn finish_lost(engine: &Engine, run: &Run, session: Session) -> Result<Fate> {
    let Some(by) = session.completing_by.clone().map(Actor::User) else { return Ok(Fate::Skipped) };
    if run.options.dry_run {
        return Ok(Fate::Found);
    }
    match finish(engine, &session, &by).await {
        Ok(Finished::Made(_) | Finished::Failed(_)) => Ok(Fate::Done),
        Ok(Finished::Ended(_)) | Err(Error::UploadIncomplete { .. } | Error::PartsMismatch(_)) => Ok(Fate::Skipped),
        Err(error) => Err(error),
    }
}
