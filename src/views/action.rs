use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ActorKindView, Time};
use crate::action::Action;

/// An action of an operator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperatorAction)]
pub(crate) struct ActionView {
    /// Counted from 1 over the whole deployment, without gaps.
    seq: i64,
    at: Time,
    /// A token's `sub`, `cli` for a command, or `system` for the schedule.
    actor: String,
    /// Null in actions from before this was recorded.
    actor_kind: Option<ActorKindView>,
    /// `tenant.create`, `tenant.bucket`, `tenant.brands`, `tenant.limit`, `job.retry`, `job.drop`, `pass.run` or
    /// `orphans.remove`.
    action: String,
    /// Null if the action concerns no single tenant.
    tenant_id: Option<Uuid>,
    #[schema(value_type = Object)]
    details: Value,
}

impl From<Action> for ActionView {
    fn from(action: Action) -> Self {
        Self {
            seq: action.seq,
            at: Time(action.at),
            actor: action.actor,
            actor_kind: action.actor_kind.map(Into::into),
            action: action.action,
            tenant_id: action.tenant_id.map(|tenant| tenant.0),
            details: action.details,
        }
    }
}
