//! `/admin/tenants`.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use chrono::NaiveDate;
use serde::{Deserialize, Deserializer, Serialize};
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::admit;
use crate::caller::{Admin, Caller, Permission};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::http::body::Body;
use crate::http::door::Door;
use crate::http::in_flight::ShareOwner;
use crate::http::problem::{Answer, FieldError, Problem};
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::http::rules::{self, each, required, typed};
use crate::input::{BucketName, Slug};
use crate::tenant::{self, Limits};
use crate::views::{TenantView, UsageView};

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantPage)]
pub(crate) struct TenantsView {
    /// Sorted by slug.
    data: Vec<TenantView>,
    /// Pass it as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantsQuery {
    #[validate(range(min = 1, max = 200))]
    limit: Option<u64>,
    #[validate(custom(function = "rules::text::<Slug>"))]
    cursor: Option<String>,
}

/// Lists all tenants, sorted by slug.
#[utoipa::path(
    get, path = "/admin/tenants", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page.", format = "slug"),
    ),
    responses((status = 200, description = "One page", body = TenantsView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn list(engine: Data<Engine>, admin: Admin, query: Query<TenantsQuery>) -> Answer {
    admin.operator()?;
    let query = query.parse()?;
    let page = tenant::list(&engine, query.cursor.as_deref(), query.limit.unwrap_or(LIMIT_DEFAULT)).await?;
    let data = page.items.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().json(TenantsView { data, next_cursor: page.next }))
}

/// A tenant with its brands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantWithBrands)]
pub(crate) struct TenantWithBrandsView {
    #[serde(flatten)]
    tenant: TenantView,
    /// The ids, by slug, of the brands that the caller holds; an operator holds all.
    brands: BTreeMap<String, Uuid>,
}

async fn with_brands(engine: &Engine, caller: &Caller) -> Result<TenantWithBrandsView> {
    let tenant = TenantView::from(tenant::standing(engine, caller.tenant).await?).seen_by(caller);
    let brands = tenant::list_brands(engine, caller).await?;
    Ok(TenantWithBrandsView { tenant, brands: brands.into_iter().map(|brand| (brand.slug, brand.id.0)).collect() })
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenantRequest {
    /// The name that people use for the tenant.
    #[schema(required, nullable = false, format = "slug")]
    #[validate(required, custom(function = "rules::text::<Slug>"))]
    slug: Option<String>,
    /// By default one brand, `main`.
    #[schema(min_items = 1, max_items = 100)]
    #[validate(length(min = 1, max = 100))]
    brands: Option<Vec<String>>,
    /// The tenant's own bucket, under the dedicated strategy.
    #[schema(format = "bucket-name")]
    #[validate(custom(function = "rules::text::<BucketName>"))]
    bucket: Option<String>,
}

impl CreateTenantRequest {
    /// # Errors
    /// The fields that break their rules.
    fn into_input(self) -> Result<(Slug, Vec<Slug>, Option<BucketName>), Vec<FieldError>> {
        let brands = match self.brands {
            Some(brands) => each("/brands", brands)?,
            None => vec![Slug::main()],
        };
        Ok((required("/slug", typed("/slug", self.slug)?)?, brands, typed("/bucket", self.bucket)?))
    }
}

/// Creates a tenant and its brands. Safe to repeat: ids stay the same, and new brands are added.
#[utoipa::path(
    post, path = "/admin/tenants", tag = "admin", request_body = CreateTenantRequest,
    responses(
        (status = 201, description = "Created", body = TenantWithBrandsView),
        (status = 200, description = "The tenant existed already", body = TenantWithBrandsView),
    ),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn create(engine: Data<Engine>, admin: Admin, body: Body<CreateTenantRequest>) -> Answer {
    let actor = admin.operator()?;
    let (slug, brands, bucket) = body.parse()?.into_input().map_err(Problem::invalid)?;
    let created = tenant::create(&engine, actor, &slug, &brands, bucket.as_ref()).await?;
    created.prepared.map_err(Error::from)?;
    info!(
        actor = actor.name(),
        tenant.slug = %slug,
        is_new = created.is_new,
        ?brands,
        "a tenant was created, or given brands"
    );
    let mut answer = if created.is_new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.json(with_brands(&engine, &Caller::operating(created.tenant_id, actor.clone())).await?))
}

/// Returns the tenant with its brands. A manager may ask about their own tenant, and sees the brands that they hold.
#[utoipa::path(
    get, path = "/admin/tenants/{slug}", tag = "admin", params(("slug" = String, Path, description = "Slug or id.")),
    responses((status = 200, description = "The tenant", body = TenantWithBrandsView)),
    extensions(("x-permission" = json!(["uploads.manage", "operator"]))),
)]
pub(crate) async fn find(engine: Data<Engine>, admin: Admin, slug: Path<String>) -> Answer {
    admit(&engine, &admin, Permission::UploadsManage).await?;
    let caller = tenant::within(&engine, &admin, Some(&slug)).await?;
    Ok(HttpResponse::Ok().json(with_brands(&engine, &caller).await?))
}

/// The changes. A member that is left out stays as it is.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeTenantRequest {
    /// A suspended tenant cannot open new sessions. Its live sessions may finish.
    suspended: Option<bool>,
    /// The most bytes that the tenant may hold; null for no limit.
    #[schema(value_type = Option<i64>, minimum = 0)]
    #[serde(default, deserialize_with = "null_or")]
    #[validate(range(min = 0))]
    quota_bytes: Option<Option<i64>>,
    /// The most sessions that may be INITIATING or UPLOADING; null for no limit.
    #[schema(value_type = Option<i64>, minimum = 0)]
    #[serde(default, deserialize_with = "null_or")]
    #[validate(range(min = 0))]
    quota_live_sessions: Option<Option<i64>>,
}

/// Returns `Some(None)` if the field is null; a field that is absent is `None` by default.
fn null_or<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Suspends or resumes the tenant, and sets its quotas. The change is in force when the request is answered.
#[utoipa::path(
    patch, path = "/admin/tenants/{slug}", tag = "admin", request_body = ChangeTenantRequest,
    params(("slug" = String, Path, description = "Slug or id.")),
    responses((status = 200, description = "The tenant after the change", body = TenantView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn change(
    engine: Data<Engine>,
    admin: Admin,
    slug: Path<String>,
    body: Body<ChangeTenantRequest>,
) -> Answer {
    let actor = admin.operator()?;
    let ChangeTenantRequest { suspended, quota_bytes, quota_live_sessions } = body.parse()?;
    let tenant = tenant::named_so(&engine, &slug).await?;
    let limits = Limits { suspended, quota_bytes, quota_live_sessions };
    let standing = tenant::limit(&engine, actor, tenant.id, limits).await?;
    Ok(HttpResponse::Ok().json(TenantView::from(standing)))
}

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddBrandsRequest {
    #[schema(required, nullable = false, min_items = 1, max_items = 100)]
    #[validate(required, length(min = 1, max = 100))]
    brands: Option<Vec<String>>,
}

/// Adds brands by their slugs. Existing brands stay.
#[utoipa::path(
    post, path = "/admin/tenants/{slug}/brands", tag = "admin", request_body = AddBrandsRequest,
    params(("slug" = String, Path, description = "Slug or id.")),
    responses((status = 200, description = "The tenant with all its brands", body = TenantWithBrandsView)),
    extensions(("x-permission" = json!("operator"))),
)]
pub(crate) async fn add_brands(
    engine: Data<Engine>,
    admin: Admin,
    slug: Path<String>,
    body: Body<AddBrandsRequest>,
) -> Answer {
    let actor = admin.operator()?;
    let brands = required("/brands", body.parse()?.brands).and_then(|brands| each("/brands", brands));
    let brands: Vec<Slug> = brands.map_err(Problem::invalid)?;
    let tenant = tenant::named_so(&engine, &slug).await?;
    tenant::add_brands(&engine, actor, &tenant, &brands).await?;
    info!(actor = actor.name(), tenant.slug, ?brands, "a tenant was given brands");
    Ok(HttpResponse::Ok().json(with_brands(&engine, &Caller::operating(tenant.id, actor.clone())).await?))
}

/// A span of days.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageQuery {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
}

/// Returns what the tenant holds, and what happened on each day. A manager may ask about their own tenant.
///
/// The figures cover all brands together, so a manager must hold every one. Sessions that have been deleted since are not
/// counted; completed sessions always are.
#[utoipa::path(
    get, path = "/admin/tenants/{slug}/usage", tag = "admin",
    params(
        ("slug" = String, Path, description = "Slug or id."),
        ("from" = Option<String>, Query, format = Date, description = "The first day, in UTC; 29 days before `to` by default."),
        ("to" = Option<String>, Query, format = Date, description = "The last day, at most 91 days after `from`; today by default."),
    ),
    responses((status = 200, description = "The usage, by day", body = UsageView)),
    extensions(("x-permission" = json!(["uploads.manage", "operator"]))),
)]
pub(crate) async fn usage(
    engine: Data<Engine>,
    door: Data<Door>,
    admin: Admin,
    slug: Path<String>,
    query: Query<UsageQuery>,
) -> Answer {
    admit(&engine, &admin, Permission::UploadsManage).await?;
    let UsageQuery { from, to } = query.parse()?;
    let caller = tenant::within(&engine, &admin, Some(&slug)).await?;
    tenant::must_hold_all_brands(&engine, &caller).await?;
    let owner = ShareOwner::from(&admin);
    let counting = async move {
        let days = tenant::usage::daily(&engine, caller.tenant, from, to).await?;
        let standing = tenant::standing(&engine, caller.tenant).await?;
        Ok::<_, Error>(UsageView::new(standing, days).seen_by(&caller))
    };
    Ok(HttpResponse::Ok().json(door.heavy.verb(owner, counting).await??))
}
