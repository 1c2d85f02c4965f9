//! `/admin/findings`: what is wrong between rows and store.

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

/// Something that is wrong between a session's rows and the store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageFinding)]
pub(crate) struct FindingView {
    /// `asset-failed`: what was uploaded was overwritten or gone before it became a READY asset, or its copy has another
    /// size; it stays for an operator.
    /// `not-cleared`: the session has ended, and the cleanup could not clear its storage; the next one tries again.
    kind: &'static str,
    tenant_id: Uuid,
    upload_session_id: Uuid,
    /// Null where the session became no asset.
    asset_id: Option<Uuid>,
    /// Null where no operator asks.
    bucket: Option<String>,
    object_key: String,
    /// When the asset failed; when the cleanup first failed.
    since: Time,
    /// For people; of a cleanup, why it failed last.
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
    /// Where the tenant's bytes lie is the operators' business.
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
    /// That of the newest session first.
    data: Vec<FindingView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
    /// For operators: the database's own files are damaged, as this process has met since its start. Null where it has
    /// not, and for managers.
    damage: Option<DamageView>,
}

/// Of the whole deployment: stop the server, and restore the database from a backup.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatabaseDamage)]
struct DamageView {
    since: Time,
    /// For people.
    cause: String,
}

/// What is wrong between rows and store, and waits for an operator or the next pass. A manager sees their own tenant's.
///
/// Keys that are not of our making, and what the search for orphans could not see to, are of no session: they are in the
/// details of its runs, at `/admin/runs?pass=orphans`.
#[utoipa::path(
    get, path = "/admin/findings", tag = "admin",
    params(
        ("kind" = Option<String>, Query, pattern = "^(asset-failed|not-cleared)$"),
        ("tenant" = Option<String>, Query, description = "Slug or id; where an operator names none, all tenants'."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the page before."),
    ),
    responses(
        (status = 200, description = "One page", body = FindingsView),
        (status = 404, description = "There is no such tenant"),
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
