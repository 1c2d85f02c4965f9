//! `/admin/actions`: what operators did.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use crate::caller::Admin;
use crate::engine::Engine;
use crate::http::problem::Answer;
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::views::ActionView;
use crate::{action, tenant};

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActionsQuery {
    tenant: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
    #[validate(range(min = 1))]
    cursor: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperatorActionPage)]
pub(crate) struct ActionsView {
    /// Newest first.
    data: Vec<ActionView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists what operators did to tenants, jobs and passes, newest first.
///
/// Also lists what the search for orphans was about to remove that belongs to no session. Actions on an upload are among
/// that upload's events.
#[utoipa::path(
    get, path = "/admin/actions", tag = "admin",
    params(
        ("tenant" = Option<String>, Query, description = "Only what was done to this tenant: its slug or id."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, pattern = "^[1-9][0-9]{0,17}$", description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "One page", body = ActionsView),
        (status = 404, description = "`not-found`: the tenant does not exist"),
    ),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn list(engine: Data<Engine>, admin: Admin, query: Query<ActionsQuery>) -> Answer {
    admin.operator()?;
    let ActionsQuery { tenant, limit, cursor } = query.parse()?;
    let tenant = match tenant {
        Some(name) => Some(tenant::named_so(&engine, &name).await?.id),
        None => None,
    };
    let page = action::list(&engine, tenant, cursor, limit.unwrap_or(LIMIT_DEFAULT)).await?;
    Ok(HttpResponse::Ok().json(ActionsView {
        data: page.items.into_iter().map(Into::into).collect(),
        next_cursor: page.next.map(|seq| seq.to_string()),
    }))
}
