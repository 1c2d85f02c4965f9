//! `/admin/findings`: problems between rows and store.

use actix_web::HttpResponse;
use actix_web::web::Data;
use entity::SessionId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::{admit, named};
use crate::caller::{Admin, Permission};
use crate::database::Damage;
use crate::engine::Engine;
use crate::finding::{self, Filter, FindingKind};
use crate::http::problem::Answer;
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::tenant;
use crate::views::{FindingView, Time};

impl From<&Damage> for DamageView {
    fn from(damage: &Damage) -> Self {
        Self { since: Time(damage.since), cause: damage.cause.clone() }
    }
}

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct FindingsQuery {
    kind: Option<String>,
    tenant: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
    cursor: Option<SessionId>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageFindingPage)]
pub(crate) struct FindingsView {
    /// Newest session first.
    data: Vec<FindingView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
    /// For operators: damage of the database's own files that this process has met since its start. Null if it has met
    /// none, and for managers.
    damage: Option<DamageView>,
}

/// Damage of the whole deployment's database: stop the server, and restore the database from a backup.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatabaseDamage)]
struct DamageView {
    since: Time,
    /// For people.
    cause: String,
}

/// Lists problems between rows and store that wait for an operator or the next pass. A manager sees their own tenant's.
///
/// Foreign object keys, and what the search for orphans could not handle, belong to no session: they are in the details of
/// its runs, at `/admin/runs?pass=orphans`.
#[utoipa::path(
    get, path = "/admin/findings", tag = "admin",
    params(
        ("kind" = Option<String>, Query, format = "finding-kind"),
        ("tenant" = Option<String>, Query, description = "Slug or id. An operator may leave it out, for all tenants."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "One page", body = FindingsView),
        (status = 404, description = "`not-found`: the tenant does not exist"),
    ),
    extensions(("x-permission" = json!([["uploads.manage", "uploads.view"], "operator"]))),
)]
pub(crate) async fn list(engine: Data<Engine>, admin: Admin, query: Query<FindingsQuery>) -> Answer {
    admit(&engine, &admin, Permission::UploadsView).await?;
    let FindingsQuery { kind, tenant, limit, cursor } = query.parse()?;
    let kind = named(kind.as_deref(), "?kind", FindingKind::named, FindingKind::ALL.map(FindingKind::name))?;
    let caller = match (&admin, &tenant) {
        (Admin::Operator(_), None) => None,
        _ => Some(tenant::within(&engine, &admin, tenant.as_deref()).await?),
    };
    let filter = Filter { kind, caller: caller.as_ref() };
    let page = finding::list(&engine, filter, cursor, limit.unwrap_or(LIMIT_DEFAULT)).await?;
    Ok(HttpResponse::Ok().json(FindingsView {
        data: page.items.into_iter().map(|finding| FindingView::from(finding).seen_by(&admin)).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
        damage: match &admin {
            Admin::Operator(_) => engine.db.damage().map(DamageView::from),
            Admin::Member(_) => None,
        },
    }))
}
