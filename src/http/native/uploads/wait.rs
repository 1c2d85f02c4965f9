//! `GET /app/uploads/{id}/wait`: a long poll, for clients that want one answer instead of a stream.

use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::framing::wants_head_only;
use crate::http::path::session_of;
use crate::http::problem::Answer;
use crate::http::query::Query;
use crate::session::{self, Goal};
use crate::views::{AssetView, SessionView};

const TIMEOUT_SECS: u64 = 30;

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitQuery {
    r#for: Option<GoalName>,
    #[validate(range(min = 0, max = 60))]
    timeout: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum GoalName {
    Terminal,
    Ready,
}

impl From<GoalName> for Goal {
    fn from(name: GoalName) -> Self {
        match name {
            GoalName::Terminal => Self::Terminal,
            GoalName::Ready => Self::Ready,
        }
    }
}

/// The session at the end of the wait.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Waited)]
pub(crate) struct WaitedView {
    #[serde(flatten)]
    session: SessionView,
    /// Whether the goal was reached; false if the timeout came first, or the server stops.
    satisfied: bool,
    /// The asset of a COMPLETED session, if the caller has `assets.view`.
    asset: Option<AssetView>,
}

/// Waits until the upload has ended, or its asset is ready.
///
/// `terminal`: COMPLETED, FAILED or CANCELLED. `ready`: the asset is READY or FAILED, or the session ended without one.
/// Answers as soon as that is reached, or at the timeout.
#[utoipa::path(
    get, path = "/app/uploads/{id}/wait", tag = "uploads",
    params(
        ("id" = uuid::Uuid, Path),
        ("for" = Option<String>, Query, pattern = "^(terminal|ready)$", description = "`terminal` by default."),
        ("timeout" = Option<u64>, Query, minimum = 0, maximum = 60, description = "Seconds; 30 by default."),
    ),
    responses(
        (status = 200, description = "The session at the end of the wait", body = WaitedView),
        (status = 503, description = "`too-many-readers`, `database-unavailable`"),
    ),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(crate) async fn wait(
    engine: Data<Engine>,
    caller: Caller,
    id: Path<String>,
    request: HttpRequest,
    query: Query<WaitQuery>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let query = query.parse()?;
    // The head of the answer does not depend on the wait.
    let secs = if wants_head_only(&request) { 0 } else { query.timeout.unwrap_or(TIMEOUT_SECS) };
    let timeout = Duration::from_secs(secs);
    let goal = query.r#for.map_or(Goal::Terminal, Into::into);
    let waited = session::wait(&engine, &caller, session_of(&id)?, goal, timeout).await?;
    Ok(HttpResponse::Ok().json(WaitedView {
        session: waited.session.into(),
        satisfied: waited.satisfied,
        asset: waited.asset.map(Into::into),
    }))
}
