use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::{ActorKind, RunId};

/// One run of a pass: what it found and what came of it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "pass_run")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: RunId,
    pub pass: String,
    /// Of the schedule; `None` where somebody asked for it.
    pub slot: Option<DateTime<Utc>>,
    /// The token's `sub`, `system` for a slot, `cli` for a command.
    pub actor: String,
    /// Which of these it is; `None` in rows of before there were kinds.
    pub actor_kind: Option<ActorKind>,
    pub dry_run: bool,
    /// What was asked for in place of the pass's own threshold.
    pub older_than_secs: Option<i64>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub found: i64,
    pub done: i64,
    pub failed: i64,
    pub skipped: i64,
    /// Why it ended early.
    pub error: Option<String>,
    /// A JSON object: what else the pass has to say.
    pub details: Json,
}

impl ActiveModelBehavior for ActiveModel {}
