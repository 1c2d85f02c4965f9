use chrono::{DateTime, Utc};

use super::rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::pass::{self, Pass, RunRecord};
use crate::timetable::Timetable;

/// A pass on the timetable.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub pass: Pass,
    /// As it is set; `None` if the pass runs only by hand.
    pub cron: Option<String>,
    pub next_slot: Option<DateTime<Utc>>,
    /// The last slot that a process has taken.
    pub last_slot: Option<DateTime<Utc>>,
    /// The last run, even if it was started by hand or has not ended yet.
    pub last_run: Option<RunRecord>,
}

/// Returns every pass with its next slot and its last run.
///
/// # Errors
/// The database does not answer.
pub async fn status(engine: &Engine) -> Result<Vec<Status>> {
    let mut all = Vec::new();
    for pass in Pass::ALL {
        let cron = engine.settings.schedule.of(pass);
        let timetable = cron.and_then(|cron| Timetable::parse(cron).ok());
        all.push(Status {
            pass,
            cron: cron.map(str::to_owned),
            next_slot: timetable.and_then(|timetable| timetable.next(engine.clock.now())),
            last_slot: rows::last_slot(engine, pass.name()).await?,
            last_run: pass::runs(engine, Some(pass), 1).await?.pop(),
        });
    }
    Ok(all)
}
