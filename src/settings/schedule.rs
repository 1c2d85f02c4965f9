use std::collections::BTreeMap;

use entity::Pass;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::Complaints;
use crate::timetable::Timetable;

/// When the passes run: cron strings in UTC, of five fields as in crontab, or of six with seconds first; or `never`.
#[derive(Clone, Debug)]
pub struct Schedule(pub BTreeMap<Pass, String>);

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let crons = BTreeMap::<String, String>::deserialize(deserializer)?;
        let passes =
            crons.into_iter().map(|(name, cron)| match Pass::ALL.into_iter().find(|pass| key(*pass) == name) {
                Some(pass) => Ok((pass, cron)),
                None => {
                    let known = Pass::ALL.map(|pass| format!("`{}`", key(pass))).join(", ");
                    Err(D::Error::custom(format_args!("unknown field `{name}`, expected one of {known}")))
                }
            });
        passes.collect::<Result<_, _>>().map(Self)
    }
}

/// The name of a pass's setting.
fn key(pass: Pass) -> String {
    pass.name().replace('-', "_")
}

impl Schedule {
    /// Returns the cron string of a pass; `None` if it is `never`.
    pub fn of(&self, pass: Pass) -> Option<&str> {
        self.0.get(&pass).map(String::as_str).filter(|cron| *cron != "never")
    }

    pub(super) fn check(&self, complaints: &mut Complaints) {
        for pass in Pass::ALL {
            match self.0.get(&pass) {
                None => complaints.add(format!("schedule.{} is missing", key(pass))),
                Some(never) if never == "never" => {}
                Some(cron) => {
                    if let Err(wrong) = Timetable::parse(cron) {
                        complaints.add(format!("schedule.{} ({cron:?}): {wrong}", key(pass)));
                    }
                }
            }
        }
    }
}
