//! The scheduled passes over all tenants: what each is called, what it is given, what it reports.

mod order;
mod rows;
mod run;
mod verbs;

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::pass_run;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) use order::Order;
pub(crate) use run::work;
pub use run::{by_hand, enqueue, run, runs};

/// A run as it is recorded.
pub type RunRecord = pass_run::Model;

/// What runs by the timetable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    DetectAbandoned,
    Cleanup,
    Orphans,
    Reconcile,
}

impl Pass {
    pub const ALL: [Self; 4] = [Self::DetectAbandoned, Self::Cleanup, Self::Orphans, Self::Reconcile];

    /// The name on the command line, in paths and in `pass_run.pass`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DetectAbandoned => "detect-abandoned",
            Self::Cleanup => "cleanup",
            Self::Orphans => "orphans",
            Self::Reconcile => "reconcile",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pass| pass.name() == name)
    }
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Look, report, and change nothing.
    pub dry_run: bool,
    /// In place of the pass's own threshold or waiting time; zero is allowed.
    pub older_than: Option<TimeDelta>,
}

/// One run of a pass, as the pass sees it.
#[derive(Clone, Debug)]
pub struct Run {
    pub options: Options,
    /// Who asked: `system` for the timetable, `cli`, or a token's `sub`. The actor of the events that it records.
    pub actor: String,
    deadline: Instant,
    stop: CancellationToken,
}

impl Run {
    /// `stop` is cancelled at shutdown, or when the run's lease is lost.
    pub fn new(options: Options, actor: impl Into<String>, budget: Duration, stop: CancellationToken) -> Self {
        Self { options, actor: actor.into(), deadline: Instant::now() + budget, stop }
    }

    /// Whether to begin with no more rows. The next run goes on.
    pub fn is_over(&self) -> bool {
        self.stop.is_cancelled() || Instant::now() >= self.deadline
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What the pass is there for.
    pub found: u64,
    /// Dealt with; nothing in a dry run.
    pub done: u64,
    /// Left for the next run because something did not answer.
    pub failed: u64,
    /// Found to be in use after all, or changed by somebody else meanwhile.
    pub skipped: u64,
    /// A JSON object with what else there is to say; empty where there is nothing.
    pub details: Option<Value>,
}

impl Report {
    pub fn details(&self) -> Value {
        self.details.clone().unwrap_or_else(|| json!({}))
    }
}
