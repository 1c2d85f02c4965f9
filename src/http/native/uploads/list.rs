use actix_web::http::StatusCode;
use actix_web::web::Data;
use entity::{BrandId, SessionId};
use serde::Deserialize;
use validator::Validate;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::door::Door;
use crate::http::in_flight::ShareOwner;
use crate::http::problem::{Answer, FieldError, Problem};
use crate::http::query::{LIMIT_DEFAULT, Query};
use crate::http::rules::{self, typed};
use crate::input::{Reference, Statuses};
use crate::session;
use crate::session::rows::Filter;
use crate::views::PageView;

/// The most bytes that one session of a page takes; its metadata takes up to 4 KiB of them.
const SESSION_BYTES: usize = 6 << 10;

/// Lists the sessions that the caller sees, newest first.
#[utoipa::path(
    get, path = "/app/uploads", tag = "uploads",
    params(
        ("status" = Option<String>, Query, description = "States, separated by commas.", format = "statuses"),
        ("brand_id" = Option<uuid::Uuid>, Query),
        ("batch_reference" = Option<String>, Query, format = "reference"),
        ("client_reference" = Option<String>, Query, format = "reference"),
        ("fingerprint" = Option<String>, Query, format = "reference"),
        ("created_by" = Option<String>, Query, format = "reference"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<uuid::Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page", body = PageView)),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(crate) async fn list(engine: Data<Engine>, door: Data<Door>, caller: Caller, query: Query<ListQuery>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let owner = ShareOwner::Tenant(caller.tenant);
    page(engine, &door, owner, caller, query.parse()?).await
}

/// Answers one page of the sessions that `caller` sees. The work counts for `owner`.
pub(crate) async fn page(
    engine: Data<Engine>,
    door: &Door,
    owner: ShareOwner,
    caller: Caller,
    query: ListQuery,
) -> Answer {
    let (before, limit) = (query.cursor, query.page_size());
    let filter = query.filter().map_err(Problem::invalid)?;
    let bytes = SESSION_BYTES * usize::try_from(limit).unwrap_or(usize::MAX);
    let room = door.in_flight.reserve(owner, bytes).await?;
    let listing = async move {
        let page = session::list(&engine, &caller, &filter, before, limit).await?;
        Ok::<_, Problem>(room.write(StatusCode::OK, &PageView::from(page)))
    };
    Ok(door.heavy.verb(owner, listing).await??.into())
}

/// The query parameters of a list.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[validate(custom(function = "rules::text::<Statuses>"))]
    pub(crate) status: Option<String>,
    pub(crate) brand_id: Option<BrandId>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    pub(crate) batch_reference: Option<String>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    pub(crate) client_reference: Option<String>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    pub(crate) fingerprint: Option<String>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    pub(crate) created_by: Option<String>,
    #[validate(range(min = 1, max = 200))]
    pub(crate) limit: Option<u64>,
    pub(crate) cursor: Option<SessionId>,
}

impl ListQuery {
    pub(crate) fn page_size(&self) -> u64 {
        self.limit.unwrap_or(LIMIT_DEFAULT)
    }

    /// # Errors
    /// The parameters that break their rules.
    pub(crate) fn filter(self) -> Result<Filter, Vec<FieldError>> {
        let statuses: Option<Statuses> = typed("?status", self.status)?;
        Ok(Filter {
            statuses: statuses.map(Statuses::into_vec).unwrap_or_default(),
            brand: self.brand_id,
            batch_reference: typed("?batch_reference", self.batch_reference)?,
            client_reference: typed("?client_reference", self.client_reference)?,
            fingerprint: typed("?fingerprint", self.fingerprint)?,
            created_by: typed("?created_by", self.created_by)?,
        })
    }
}
