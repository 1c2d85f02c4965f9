use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{ActorKind, RunId};

/// A pass that the timetable runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// One run of a pass, with its counts and results.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "pass_run")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: RunId,
    pub pass: String,
    /// The slot of the schedule; `None` for a run started by hand.
    pub slot: Option<DateTime<Utc>>,
    /// The token's `sub`, `system` for a slot, `cli` for a command.
    pub actor: String,
    /// The kind of that actor; `None` in rows written before kinds were introduced.
    pub actor_kind: Option<ActorKind>,
    pub dry_run: bool,
    /// The requested threshold, if it replaces the pass's own.
    pub older_than_secs: Option<i64>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub found: i64,
    pub done: i64,
    pub failed: i64,
    pub skipped: i64,
    /// Why the run ended early.
    pub error: Option<String>,
    /// A JSON object with further results of the pass.
    pub details: Json,
}

impl ActiveModelBehavior for ActiveModel {}
