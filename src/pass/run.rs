use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, instrument, warn};

use super::{Options, Pass, PassRequest, Report, Run, RunRecord, rows};
use crate::action;
use crate::caller::Actor;
use crate::database::Tx;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::jobs::{self, Ending, Lease};

/// What a pass does. Looks at [`Run::is_over`] between its steps.
pub type Verb = for<'a> fn(&'a Engine, Pass, &'a Run) -> BoxFuture<'a, Result<Report>>;

/// Runs a pass now, in this process, and records the run. If the pass fails, the recorded run has an error; this function
/// does not fail.
///
/// Does not keep other processes from running the same pass, which is harmless but repeats work; [`by_hand`] does. The run
/// is not recorded as an operator's action. Cancelling `stop` asks for an early end.
///
/// # Errors
/// The run could not be recorded. [`Error::LeaseLost`] if another process started the same pass meanwhile and took this one
/// for dead.
pub async fn run(
    engine: &Engine,
    verb: Verb,
    pass: Pass,
    options: Options,
    actor: &Actor,
    slot: Option<DateTime<Utc>>,
    stop: &CancellationToken,
) -> Result<RunRecord> {
    let request = PassRequest { slot, ..PassRequest::by_hand(pass, options, actor) };
    perform(engine, verb, &request, stop, async |_, _| Ok(())).await
}

/// Runs a pass now, in this process. Returns `None` if the pass is already running or queued in any process. If this process
/// dies during the run, a worker runs the pass from the start when the lease expires.
///
/// # Errors
/// As [`run`].
pub async fn by_hand(
    engine: &Engine,
    verb: Verb,
    pass: Pass,
    options: Options,
    actor: &Actor,
    stop: &CancellationToken,
) -> Result<Option<RunRecord>> {
    let request = PassRequest::by_hand(pass, options, actor);
    let tx = engine.db.begin().await?;
    let Some(lease) = jobs::begin(engine, &tx, &request.job(engine.clock.now())).await? else { return Ok(None) };
    action::record(engine, &tx, actor, request.act(lease.job.id)).await?;
    tx.commit().await?;
    let run = lease.run_with_heartbeat(engine, stop, async |own| {
        perform(engine, verb, &request, own, async |tx, _| lease.settle(tx).await).await
    });
    run.await.map(Some)
}

/// Does the work of a pass's job. After an early end, another worker does the rest.
pub(crate) async fn work(engine: &Engine, verb: Verb, lease: &Lease, stop: &CancellationToken) -> Result<Ending> {
    let request = PassRequest::of_job(&lease.job)?;
    let mut ending = Ending::Done;
    perform(engine, verb, &request, stop, async |tx, was_stopped| {
        if was_stopped {
            ending = Ending::HandedOver;
            return Ok(());
        }
        lease.settle(tx).await
    })
    .await?;
    Ok(ending)
}

/// Records the start of a run, runs the pass's verb, and records the outcome. If the wall clock jumped since the last check,
/// the run only records that, and the next run does the work. `also` runs in the transaction that records the outcome. It is
/// told whether the run was stopped before it finished; a failed run was not.
#[instrument(name = "pass.run", skip_all, fields(pass.name = request.pass.name(), pass.dry_run = request.dry_run))]
async fn perform(
    engine: &Engine,
    verb: Verb,
    request: &PassRequest,
    stop: &CancellationToken,
    also: impl AsyncFnOnce(&Tx, bool) -> Result<()>,
) -> Result<RunRecord> {
    let opened = rows::open(engine, request).await?;
    let budget = Duration::from_secs(engine.settings.lifecycle.pass_budget_secs);
    let run = Run::new(request.options(), request.actor.clone(), budget, stop.clone());
    let outcome = match engine.clock.jumped_by() {
        Some(by) => Err(describe_jump(by)),
        None => attempt(engine, verb, request.pass, &run).await,
    };
    let was_stopped = outcome.is_ok() && run.was_stopped();
    let (report, error) = match outcome {
        Ok(report) => (report, was_stopped.then(|| "the run was stopped before it finished".to_owned())),
        Err(error) => (run.so_far(), Some(error)),
    };
    let tx = engine.db.begin().await?;
    let closed = rows::close(&tx, opened.id, engine.clock.now(), &report, error.as_deref()).await?;
    let record = closed.ok_or(Error::LeaseLost)?;
    also(&tx, was_stopped).await?;
    rows::prune(&tx, request.pass).await?;
    tx.commit().await?;
    match &record.error {
        Some(error) => warn!(pass.error = error, "the pass ended early"),
        None => info!(found = report.found, done = report.done, failed = report.failed, "the pass has finished"),
    }
    Ok(record)
}

/// Returns the report of the pass, or why it failed.
async fn attempt(engine: &Engine, verb: Verb, pass: Pass, run: &Run) -> Result<Report, String> {
    match AssertUnwindSafe(verb(engine, pass, run)).catch_unwind().await {
        Ok(outcome) => outcome.map_err(|error| error.explained()),
        Err(_) => {
            error!("the pass panicked");
            Err("the pass panicked, which is a bug".to_owned())
        }
    }
}

fn describe_jump(by: TimeDelta) -> String {
    let minutes = (by.num_seconds().abs() + 30) / 60;
    let (hours, minutes) = (minutes / 60, minutes % 60);
    if by > TimeDelta::zero() {
        format!(
            "the wall clock jumped forward by {hours} h {minutes} min: nothing was done; later runs of this process \
             ignore the jump (if the clock is right now, restart the process)"
        )
    } else {
        format!("the wall clock jumped back by {hours} h {minutes} min: nothing was done; the next run accepts it")
    }
}
