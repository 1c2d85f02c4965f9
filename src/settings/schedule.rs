use serde::Deserialize;

use super::Complaints;
use crate::pass::Pass;
use crate::schedule::Timetable;

/// When the passes run: cron strings in UTC, of five fields as in crontab, or of six with seconds first; or `never`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub detect_abandoned: String,
    pub cleanup: String,
    pub orphans: String,
    pub reconcile: String,
}

impl Schedule {
    /// Returns the cron string of a pass; `None` if it is `never`.
    pub fn of(&self, pass: Pass) -> Option<&str> {
        let cron = match pass {
            Pass::DetectAbandoned => &self.detect_abandoned,
            Pass::Cleanup => &self.cleanup,
            Pass::Orphans => &self.orphans,
            Pass::Reconcile => &self.reconcile,
        };
        Some(cron.as_str()).filter(|cron| *cron != "never")
    }

    pub(super) fn check(&self, complaints: &mut Complaints) {
        for pass in Pass::ALL {
            let Some(cron) = self.of(pass) else { continue };
            if let Err(wrong) = Timetable::parse(cron) {
                let key = pass.name().replace('-', "_");
                complaints.add(format!("schedule.{key} ({cron:?}): {wrong}"));
            }
        }
    }
}
