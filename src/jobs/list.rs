use chrono::{DateTime, Utc};
use entity::{JobId, JobKind};

use super::Job;
use super::rows::{self, Retried};
use crate::action::{self, Act};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Busy, Error, Result};
use crate::page::Page;

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits until it is due, until its pause after a failure ends, or, if its worker vanished, for another worker.
    Waiting,
    Running,
    /// Failed too often. Stays until an operator retries or deletes it, or, for a promotion, until `reconcile` replaces it.
    Dead,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Running, Self::Dead];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    pub fn of(job: &Job, now: DateTime<Utc>) -> Self {
        if job.dead_at.is_some() {
            Self::Dead
        } else if job.lease_token.is_some() && job.run_at > now {
            Self::Running
        } else {
            Self::Waiting
        }
    }
}

/// Which jobs to list; by default all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub kind: Option<JobKind>,
    pub state: Option<State>,
}

/// Counts the jobs of each kind in each state. Leaves out combinations without jobs.
///
/// # Errors
/// The database does not answer.
pub async fn count(engine: &Engine) -> Result<Vec<(String, State, i64)>> {
    let mut counts = Vec::new();
    for state in State::ALL {
        let of_kinds = rows::count(engine, state).await?;
        counts.extend(of_kinds.into_iter().map(|(kind, count)| (kind, state, count)));
    }
    Ok(counts)
}

/// Returns jobs that are not done, newest first; `limit` must be 1 to 1,000.
pub async fn list(engine: &Engine, filter: Filter, before: Option<JobId>, limit: u64) -> Result<Page<Job, JobId>> {
    let jobs = rows::list(engine, filter, before, limit + 1).await?;
    Ok(Page::cut(jobs, limit, |last| last.id))
}

/// Makes a dead or waiting job due now, with all its attempts left. Its last error stays readable.
///
/// # Errors
/// [`Error::NotFound`] if there is no such job, or it is done by now. [`Error::Busy`] if it is running, or if another job
/// with its dedupe key, which does the same work, is in the queue.
pub async fn retry(engine: &Engine, actor: &Actor, id: JobId) -> Result<Job> {
    let tx = engine.db.begin().await?;
    match rows::retry(engine, &tx, id).await? {
        Retried::Due(job) => {
            tx.wake_after(&engine.wake);
            action::record(engine, &tx, actor, Act::retried_job(&job)).await?;
            tx.commit().await?;
            Ok(*job)
        }
        Retried::NotThere => {
            tx.rollback().await;
            Err(running_or_gone(engine, id).await?)
        }
        Retried::KeyTaken => Err(Error::Busy(Busy::QueuedWork)),
    }
}

/// Deletes a dead or waiting job, so that it is never done.
///
/// # Errors
/// [`Error::NotFound`] if there is no such job, or it is done by now. [`Error::Busy`] if it is running.
pub async fn discard(engine: &Engine, actor: &Actor, id: JobId) -> Result<()> {
    let tx = engine.db.begin().await?;
    let Some(job) = rows::discard(engine, &tx, id).await? else {
        tx.rollback().await;
        return Err(running_or_gone(engine, id).await?);
    };
    action::record(engine, &tx, actor, Act::dropped_job(&job)).await?;
    tx.commit().await
}

async fn running_or_gone(engine: &Engine, id: JobId) -> Result<Error> {
    Ok(match rows::find(engine, id).await? {
        Some(_) => Error::Busy(Busy::RunningJob),
        None => Error::NotFound,
    })
}
