use chrono::{DateTime, TimeDelta, Utc};
use entity::{JobId, JobKind};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Options, Pass};
use crate::action::Act;
use crate::caller::Actor;
use crate::error::{Error, Result};
use crate::jobs::{Job, NewJob};

/// A request to run a pass, as stored in the job's payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PassRequest {
    pub pass: Pass,
    /// The slot of the schedule; `None` if the pass was started by hand.
    pub slot: Option<DateTime<Utc>>,
    #[serde(flatten)]
    pub actor: Actor,
    pub dry_run: bool,
    pub older_than_secs: Option<i64>,
}

impl PassRequest {
    pub fn by_hand(pass: Pass, options: Options, actor: &Actor) -> Self {
        Self {
            pass,
            slot: None,
            actor: actor.clone(),
            dry_run: options.dry_run,
            older_than_secs: options.older_than.map(|span| span.num_seconds()),
        }
    }

    pub fn of_slot(pass: Pass, slot: DateTime<Utc>) -> Self {
        Self { slot: Some(slot), ..Self::by_hand(pass, Options::default(), &Actor::System) }
    }

    pub fn options(&self) -> Options {
        let older_than = self.older_than_secs.map(|secs| TimeDelta::try_seconds(secs).unwrap_or(TimeDelta::MAX));
        Options { dry_run: self.dry_run, older_than }
    }

    /// Returns the job. Its dedupe key allows one job of each pass at a time, over all processes.
    pub fn job(&self, now: DateTime<Utc>) -> NewJob {
        NewJob {
            kind: JobKind::Pass(self.pass),
            tenant: None,
            payload: json!(self),
            priority: 0,
            dedupe_key: Some(format!("pass/{}", self.pass.name())),
            run_at: now,
        }
    }

    /// Returns the action of an operator who asked for this run.
    pub fn act(&self, job: JobId) -> Act {
        Act::ran_pass(self.pass, self.dry_run, self.older_than_secs, job)
    }

    /// # Errors
    /// [`Error::BadJob`] if the payload is not an order.
    pub fn of_job(job: &Job) -> Result<Self> {
        serde_json::from_value(job.payload.clone()).map_err(|error| Error::BadJob(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_order_survives_its_job() {
        let slot = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
        let options = Options { dry_run: true, older_than: Some(TimeDelta::zero()) };
        let ann = Actor::Operator("ann".to_owned());
        for pass in Pass::ALL {
            for request in [
                PassRequest::of_slot(pass, slot),
                PassRequest::by_hand(pass, options, &Actor::Command),
                PassRequest::by_hand(pass, options, &ann),
            ] {
                let job = request.job(slot);
                assert_eq!(job.payload["pass"], pass.name());
                assert_eq!(job.kind.name(), pass.name());
                assert_eq!(serde_json::from_value::<PassRequest>(job.payload).unwrap(), request);
            }
        }
        assert_eq!(PassRequest::by_hand(Pass::Cleanup, options, &ann).options(), options);
    }

    #[test]
    fn an_order_of_the_version_before_is_read() {
        for (name, actor) in
            [("system", Actor::System), ("cli", Actor::Command), ("ann", Actor::Operator("ann".to_owned()))]
        {
            let payload = json!({
                "pass": "cleanup", "slot": null, "actor": name, "dry_run": false, "older_than_secs": null,
            });
            assert_eq!(serde_json::from_value::<PassRequest>(payload).unwrap().actor, actor);
        }
        // An operator with this name is not the machine.
        let named_so = PassRequest::by_hand(Pass::Cleanup, Options::default(), &Actor::Operator("system".to_owned()));
        assert_eq!(serde_json::from_value::<PassRequest>(json!(named_so)).unwrap(), named_so);
    }
}
