use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::pass_run::Pass;
use crate::{JobId, TenantId};

/// The kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Copy a completed upload to where its asset is served from.
    Promote,
    /// The same for an object so large that it is copied in parts. It has a kind of its own because it may take an hour.
    PromoteByParts,
    /// A run of a pass.
    Pass(Pass),
}

impl JobKind {
    pub const ALL: [Self; 2 + Pass::ALL.len()] = {
        let mut all = [Self::Promote; 2 + Pass::ALL.len()];
        all[1] = Self::PromoteByParts;
        let mut index = 0;
        while index < Pass::ALL.len() {
            all[2 + index] = Self::Pass(Pass::ALL[index]);
            index += 1;
        }
        all
    };

    /// The name in `job.kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::PromoteByParts => "promote-by-parts",
            Self::Pass(pass) => pass.name(),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A background job. Its row is deleted when the work is done. A dead job stays until it is retried, replaced or deleted.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: JobId,
    pub kind: String,
    /// The tenant whose share of the worker slots the job takes. All zeros: the deployment's own share.
    pub tenant_id: TenantId,
    /// A JSON object.
    pub payload: Json,
    /// Lower runs first, among the jobs of one tenant.
    pub priority: i32,
    /// Shared by at most one job that is not dead.
    pub dedupe_key: Option<String>,
    /// How many times the job was claimed.
    pub attempts: i32,
    pub max_attempts: i32,
    /// When the job may be claimed: its scheduled time, the end of its backoff after a failure, or the end of its lease.
    pub run_at: DateTime<Utc>,
    /// Whether that time has come and the job waits for a worker.
    pub queued: bool,
    /// The lease holder's token. A worker with a different token has lost the lease.
    pub lease_token: Option<Uuid>,
    pub last_error: Option<String>,
    pub dead_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        for kind in JobKind::ALL {
            assert_eq!(JobKind::named(kind.name()), Some(kind));
        }
        assert_eq!(JobKind::named("cleanup"), Some(JobKind::Pass(Pass::Cleanup)));
    }
}
