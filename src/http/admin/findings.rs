//! `/admin/findings`: problems between rows and store.

use actix_web::HttpResponse;
use actix_web::web::Data;
use entity::SessionId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::{admit, named};
use crate::caller::{Admin, Permission};
use crate::deployment::Damage;
use crate::engine::Engine;
use crate::finding::{self, Filter, Finding, Kind};
use crate::http::problem::Answer;
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::http::views::Time;
use crate::tenant;

/// A problem between a session's rows and the store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageFinding)]
pub(crate) struct FindingView {
    /// `asset-failed`: the uploaded object was overwritten or lost before its asset was READY, or its copy has another size
    /// or checksum; an operator must decide.
    /// `not-cleared`: the session has ended, and the cleanup could not clear its storage; the next one tries again.
    kind: &'static str,
    tenant_id: Uuid,
    upload_session_id: Uuid,
    /// Null if the session became no asset.
    asset_id: Option<Uuid>,
    /// Null unless an operator asks.
    bucket: Option<String>,
    object_key: String,
    /// When the asset failed, or when the cleanup first failed.
    since: Time,
    /// For people; of a cleanup, the reason of its last failure.
    cause: String,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        Self {
            kind: finding.kind.name(),
            tenant_id: finding.tenant.0,
            upload_session_id: finding.session.0,
            asset_id: finding.asset.map(|asset| asset.0),
            bucket: Some(finding.bucket),
            object_key: finding.object_key,
            since: Time(finding.since),
            cause: finding.cause,
        }
    }
}

impl From<&Damage> for DamageView {
    fn from(damage: &Damage) -> Self {
        Self { since: Time(damage.since), cause: damage.cause.clone() }
    }
}

impl FindingView {
    /// Only operators may see where the tenant's bytes are stored.
    fn seen_by(self, admin: &Admin) -> Self {
        match admin {
            Admin::Operator(_) => self,
            Admin::Member(_) => Self { bucket: None, ..self },
        }
    }
}

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct FindingsQuery {
    kind: Option<String>,
    tenant: Option<String>,
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
    cursor: Option<SessionId>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageFindingPage)]
pub(in crate::http) struct FindingsView {
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
        ("kind" = Option<String>, Query, pattern = "^(asset-failed|not-cleared)$"),
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
pub(in crate::http) async fn list(engine: Data<Engine>, admin: Admin, query: Query<FindingsQuery>) -> Answer {
    admit(&engine, &admin, Permission::UploadsView).await?;
    let FindingsQuery { kind, tenant, limit, cursor } = query.parse()?;
    let kind = named(kind.as_deref(), "?kind", Kind::named, Kind::ALL.map(Kind::name))?;
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
            Admin::Operator(_) => engine.looked.damage().map(DamageView::from),
            Admin::Member(_) => None,
        },
    }))
}
