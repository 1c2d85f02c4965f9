//! The passes over all tenants: how one is requested, run and recorded. What each does is in `work/passes.rs`.

mod enqueue;
mod request;
mod rows;
mod run;
mod runs;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::pass_run;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::caller::Actor;

pub use enqueue::enqueue;
pub use entity::Pass;
pub(crate) use request::PassRequest;
pub(crate) use run::work;
pub use run::{Verb, by_hand, run};
pub use runs::runs;

/// A run as it is recorded.
pub type RunRecord = pass_run::Model;

/// Options of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Look and report, but change nothing.
    pub dry_run: bool,
    /// Replaces the pass's own threshold or waiting time; zero is allowed.
    pub older_than: Option<TimeDelta>,
}

/// One run of a pass, as the pass sees it.
#[derive(Clone, Debug)]
pub struct Run {
    pub options: Options,
    /// Who started the run; [`Actor::System`] for the timetable. Also the actor of the events that the run records.
    pub actor: Actor,
    deadline: Instant,
    stop: CancellationToken,
    /// Whether the pass was told that the run is over; shared by clones.
    has_heard: Arc<AtomicBool>,
    /// The counts so far; shared by clones.
    so_far: Arc<Mutex<Report>>,
}

impl Run {
    /// `stop` is cancelled at shutdown, or when the run's lease is lost.
    pub fn new(options: Options, actor: Actor, budget: Duration, stop: CancellationToken) -> Self {
        Self {
            options,
            actor,
            deadline: Instant::now() + budget,
            stop,
            has_heard: Arc::default(),
            so_far: Arc::default(),
        }
    }

    /// Whether the pass must start no more rows. The next run continues.
    pub fn is_over(&self) -> bool {
        let is_over = self.stop.is_cancelled() || Instant::now() >= self.deadline;
        if is_over {
            self.has_heard.store(true, Ordering::Relaxed);
        }
        is_over
    }

    /// Returns the same run for the first of `parts` remaining parts. It is over after an equal share of the time left, so
    /// that a long part does not take the time of the others.
    pub(crate) fn share(&self, parts: u32) -> Self {
        let now = Instant::now();
        Self { deadline: now + self.deadline.saturating_duration_since(now) / parts.max(1), ..self.clone() }
    }

    /// Adds the counts of a part of the pass. They are recorded even if the pass fails later.
    pub(crate) fn add(&self, part: &Report) {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner).add(part);
    }

    /// Returns the sum of the counts added so far.
    fn so_far(&self) -> Report {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the pass left rows over because of `stop`. A pass that did not call [`Self::is_over`] after the stop had no
    /// rows left.
    fn was_stopped(&self) -> bool {
        self.stop.is_cancelled() && self.has_heard.load(Ordering::Relaxed)
    }
}

/// Maximum number of causes that a report names.
pub(crate) const CAUSES_MAX: usize = 20;

/// The outcome of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Items that the pass has to handle.
    pub found: u64,
    /// Items handled; 0 in a dry run.
    pub done: u64,
    /// Items left for the next run because something did not answer.
    pub failed: u64,
    /// Items found to be in use after all, or changed by others meanwhile.
    pub skipped: u64,
    /// A JSON object with further details; `None` if there are none.
    pub details: Option<Value>,
    /// Causes of some of the failures, by the item that failed.
    pub causes: BTreeMap<String, String>,
}

impl Report {
    /// Adds the counts of a part.
    pub(crate) fn add(&mut self, part: &Self) {
        self.found += part.found;
        self.done += part.done;
        self.failed += part.failed;
        self.skipped += part.skipped;
    }

    /// Records why an item failed. Only the first [`CAUSES_MAX`] causes are kept.
    pub(crate) fn name(&mut self, what: String, cause: &str) {
        if self.causes.len() < CAUSES_MAX {
            self.causes.insert(what, cause.to_owned());
        }
    }

    pub fn details(&self) -> Value {
        self.details.clone().unwrap_or_else(|| json!({}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_its_share_of_what_is_left() {
        let stop = CancellationToken::new();
        let run = |secs| Run::new(Options::default(), Actor::System, Duration::from_secs(secs), stop.clone());
        let share = run(400).share(4);
        let left = share.deadline.saturating_duration_since(Instant::now());
        assert!(left > Duration::from_secs(90) && left <= Duration::from_secs(100), "{left:?}");
        assert!(!share.is_over() && run(0).share(4).is_over());
        let whole = run(400);
        whole.share(4).add(&Report { done: 7, ..Report::default() });
        assert_eq!(whole.so_far().done, 7, "they count together");
        stop.cancel();
        assert!(share.is_over());
    }

    #[test]
    fn a_run_was_stopped_where_it_heard_of_it() {
        let stop = CancellationToken::new();
        let hour = Duration::from_secs(3_600);
        let run = Run::new(Options::default(), Actor::System, hour, stop.clone());
        assert!(!run.is_over() && !run.was_stopped());
        stop.cancel();
        assert!(!run.was_stopped(), "it did not ask again: it was through");
        assert!(run.clone().is_over());
        assert!(run.was_stopped());

        let late = Run::new(Options::default(), Actor::System, Duration::ZERO, CancellationToken::new());
        assert!(late.is_over());
        assert!(!late.was_stopped(), "its time was up: the next one goes on");
    }
}
