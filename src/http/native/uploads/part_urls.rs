use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use validator::Validate;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::body::{self, Body};
use crate::http::caller::admit;
use crate::http::door::Door;
use crate::http::in_flight::ShareOwner;
use crate::http::path::session_of;
use crate::http::problem::{Answer, FieldError, Problem};
use crate::http::rules::required;
use crate::session::{self, PartUrl, Wanted};
use crate::views::{Time, put_headers};

const PART_URL_BYTES: usize = 1 << 10;

const STREAM_BYTES: usize = 128 << 10;

/// The part that a URL is wanted for.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartUrlRequest {
    /// 1 to the session's `total_parts`.
    #[schema(required, nullable = false, minimum = 1, maximum = 10000)]
    #[validate(required)]
    part_number: Option<i64>,
}

/// The URL for one part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PartUrl)]
pub(crate) struct PartUrlView {
    part_number: u32,
    upload_url: String,
    /// `PUT`.
    upload_method: &'static str,
    /// Send these headers exactly.
    #[schema(value_type = std::collections::HashMap<String, String>)]
    upload_headers: Map<String, Value>,
    /// The part's first byte in the file.
    offset: u64,
    /// Bytes of the part; the URL accepts no other number.
    size: u64,
}

impl From<PartUrl> for PartUrlView {
    fn from(part: PartUrl) -> Self {
        Self {
            part_number: part.part_number,
            upload_url: part.upload_url,
            upload_method: "PUT",
            upload_headers: put_headers(vec![]),
            offset: part.offset,
            size: part.size,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SinglePartUrl)]
pub(crate) struct SinglePartUrlView {
    #[serde(flatten)]
    part: PartUrlView,
    expires_at: Time,
}

/// Returns the URL for one part. No side effect.
#[utoipa::path(
    post, path = "/app/uploads/{id}/multipart-part-url", tag = "uploads", request_body = PartUrlRequest,
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "Valid for 15 minutes by default, and never longer than the session", body = SinglePartUrlView),
        (status = 409, description = "`illegal-transition`, `session-expired`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(crate) async fn part_url(
    engine: Data<Engine>,
    caller: Caller,
    id: Path<String>,
    body: Body<PartUrlRequest>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    let number = required("/part_number", body.parse()?.part_number).map_err(Problem::invalid)?;
    let (part, expires_at) = session::part_url(&engine, &caller, session_of(&id)?, number).await?;
    Ok(HttpResponse::Ok().json(SinglePartUrlView { part: part.into(), expires_at: Time(expires_at) }))
}

/// The parts that URLs are wanted for: `part_numbers`, or `from` and `to`; up to 10,000.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartUrlsRequest {
    #[validate(length(min = 1, max = 10_000))]
    part_numbers: Option<Vec<i64>>,
    from: Option<i64>,
    to: Option<i64>,
}

/// The parts that URLs are wanted for, in one of two forms.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = PartUrlsRequest)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum PartUrlsForms {
    These(TheseParts),
    Range(PartRange),
}

/// Parts by their numbers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct TheseParts {
    #[schema(min_items = 1, max_items = 10000)]
    part_numbers: Vec<PartNumber>,
}

/// A range of parts, both ends included.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct PartRange {
    from: PartNumber,
    to: PartNumber,
}

/// 1 to the session's `total_parts`.
#[derive(Deserialize, ToSchema)]
#[schema(minimum = 1, maximum = 10000)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct PartNumber(i64);

impl PartUrlsRequest {
    fn wanted(self) -> Result<Wanted, Vec<FieldError>> {
        match (self.part_numbers, self.from, self.to) {
            (Some(numbers), None, None) => Ok(Wanted::These(numbers)),
            (None, Some(from), Some(to)) => Ok(Wanted::Range { from, to }),
            (None, _, None) | (None, None, _) => {
                let missing = |name: &str| FieldError::new(name, "required", "give part_numbers, or from and to");
                Err(vec![match (self.from, self.to) {
                    (Some(_), None) => missing("/to"),
                    (None, Some(_)) => missing("/from"),
                    _ => missing("/part_numbers"),
                }])
            }
            (Some(_), _, _) => {
                let detail = "give part_numbers, or from and to, not both";
                Err(vec![FieldError::new("/part_numbers", "conflict", detail)])
            }
        }
    }
}

#[derive(ToSchema)]
#[schema(as = PartUrls)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct PartUrlsView {
    multipart_upload_id: String,
    expires_at: Time,
    /// In the order of the request.
    parts: Vec<PartUrlView>,
}

/// The members before the parts of [`PartUrlsView`]. The parts are made while they are sent.
#[derive(Serialize)]
struct PartUrlsHead {
    multipart_upload_id: String,
    expires_at: Time,
}

/// Returns the URLs for many parts. No side effect.
#[utoipa::path(
    post, path = "/app/uploads/{id}/multipart-part-urls", tag = "uploads", request_body = PartUrlsForms,
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "Valid for 15 minutes by default, and never longer than the session", body = PartUrlsView),
        (status = 409, description = "`illegal-transition`, `session-expired`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(crate) async fn part_urls(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    id: Path<String>,
    body: Body<PartUrlsRequest, { body::PARTS }>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    let owner = ShareOwner::Tenant(caller.tenant);
    let wanted = door.heavy.run(owner, body.size(), move || body.parse()).await??.wanted().map_err(Problem::invalid)?;
    let urls = session::part_urls(&engine, &caller, session_of(&id)?, wanted).await?;
    let bytes = STREAM_BYTES.min(urls.size_hint().0 * PART_URL_BYTES);
    let room = door.in_flight.reserve(owner, bytes).await?;
    let head =
        PartUrlsHead { multipart_upload_id: urls.multipart_upload_id.clone(), expires_at: Time(urls.expires_at) };
    Ok(room.json_list(&head, "parts", urls.map(PartUrlView::from)))
}
