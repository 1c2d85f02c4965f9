use chrono::{DateTime, Utc};
use entity::JobId;

use super::rows::{self, Retried};
use super::{Job, Kind};
use crate::action::{self, Act};
use crate::caller::Actor;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::page::Page;

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// For its time, for the end of its pause after a failure, or, where its worker vanished, for the next one.
    Waiting,
    Running,
    /// It failed too often. Only an operator moves it.
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

/// Which jobs to list; nothing set is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub kind: Option<Kind>,
    pub state: Option<State>,
}

/// How many jobs of each kind there are in each state; none where there are none.
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

/// Jobs that are not done, newest first; `limit` is 1 to 1,000.
pub async fn list(engine: &Engine, filter: Filter, before: Option<JobId>, limit: u64) -> Result<Page<Job, JobId>> {
    let jobs = rows::list(engine, filter, before, limit + 1).await?;
    Ok(Page::cut(jobs, limit, |last| last.id))
}

/// Makes a dead job, or one that waits, due now, as if it had never failed; its last error stays to be read.
///
/// # Errors
/// [`Error::NotFound`], also where it is done by now; [`Error::Busy`] where it is running, or another job with its dedupe
/// key waits: that one does the same.
pub async fn retry(engine: &Engine, actor: &Actor, id: JobId) -> Result<Job> {
    let tx = engine.db.begin().await?;
    match rows::retry(engine, &tx, id).await? {
        Retried::Due(job) => {
            tx.ring_after(&engine.wake);
            action::record(engine, &tx, actor, Act::retried_job(&job)).await?;
            tx.commit().await?;
            Ok(*job)
        }
        Retried::NotThere => {
            tx.rollback().await;
            Err(running_or_gone(engine, id).await?)
        }
        Retried::KeyTaken => Err(Error::Busy("another job for the same work is in the queue".to_owned())),
    }
}

/// Deletes a job, dead or waiting, that nobody shall do.
///
/// # Errors
/// [`Error::NotFound`], also where it is done by now; [`Error::Busy`] where it is running.
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
        Some(_) => Error::Busy("the job is running".to_owned()),
        None => Error::NotFound,
    })
}
