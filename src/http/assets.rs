//! `/app/assets`.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Data, Path};
use entity::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use validator::Validate;

use super::body::{self, Body};
use super::door::Door;
use super::in_flight::Asker;
use super::middleware::name_session;
use super::problem::Answer;
use super::query::Query;
use super::views::{AssetView, Time};
use super::{admit, id_of, rules};
use crate::asset::{self, Disposition, Download};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Error;
use crate::session::{self, Completion};

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteRequest {
    #[schema(required, nullable = false, value_type = uuid::Uuid)]
    #[validate(required)]
    upload_session_id: Option<SessionId>,
    /// If given, must match the parts that the store holds.
    #[schema(max_items = 10000)]
    #[validate(length(max = 10_000), nested)]
    parts: Option<Vec<CompletedPart>>,
    /// The file's name by default.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    #[validate(length(min = 1, max = 255), custom(function = "rules::no_control"))]
    title: Option<String>,
    /// Its members replace the session's members of the same name.
    #[schema(value_type = Option<Object>)]
    #[validate(custom(function = "rules::metadata"))]
    metadata: Option<rules::Object>,
}

impl CompleteRequest {
    pub(super) fn into_completion(self) -> Completion {
        Completion {
            parts: self.parts.map(|parts| {
                parts.into_iter().map(|p| (p.part_number.unwrap_or_default(), p.etag.unwrap_or_default())).collect()
            }),
            title: self.title,
            metadata: self.metadata.map(|metadata| Value::Object(metadata.0)),
        }
    }
}

// validator requires `Serialize` of a nested shape.
#[derive(Debug, Deserialize, Serialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompletedPart {
    #[schema(required, nullable = false, minimum = 1, maximum = 10000)]
    #[validate(required, range(min = 1, max = 10_000))]
    part_number: Option<i64>,
    /// With or without quotes.
    #[schema(required, nullable = false, min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    #[validate(required, length(min = 1, max = 256), custom(function = "rules::no_control"))]
    etag: Option<String>,
}

/// Completes an upload whose bytes are all in the store, and makes its asset. Safe to repeat.
#[utoipa::path(
    post, path = "/app/assets/upload/complete", tag = "assets", request_body = CompleteRequest,
    responses(
        (status = 201, description = "The asset was made", body = AssetView),
        (status = 200, description = "The asset was made before", body = AssetView),
        (status = 409, description = "`upload-incomplete`, `parts-mismatch`, `illegal-transition`, `session-expired`"),
    ),
    extensions(("x-permission" = json!("assets.create"))),
)]
pub(super) async fn complete(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    body: Body<CompleteRequest, { body::PARTS }>,
) -> Answer {
    admit(&engine, &caller, Permission::AssetsCreate).await?;
    let body = door.apart.run(Asker::Tenant(caller.tenant), body.size(), move || body.parse()).await??;
    let id = body.upload_session_id.ok_or(Error::NotFound)?;
    name_session(id);
    let completion = body.into_completion();
    let (asset, made) = session::complete(&engine, &caller, id, &completion).await?;
    let mut answer = if made { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.json(AssetView::from(asset)))
}

/// Returns the asset, to every caller who holds its brand.
#[utoipa::path(
    get, path = "/app/assets/{id}", tag = "assets", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "The asset", body = AssetView)),
    extensions(("x-permission" = json!("assets.view"))),
)]
pub(super) async fn find(engine: Data<Engine>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::AssetsView).await?;
    let asset = asset::find(&engine, &caller, id_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(AssetView::from(asset)))
}

/// The query parameters of a download.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct DownloadQuery {
    expires_in: Option<u64>,
    redirect: Option<bool>,
    disposition: Option<DispositionName>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DispositionName {
    Attachment,
    Inline,
}

impl From<DispositionName> for Disposition {
    fn from(name: DispositionName) -> Self {
        match name {
            DispositionName::Attachment => Self::Attachment,
            DispositionName::Inline => Self::Inline,
        }
    }
}

/// A URL from which an asset's file can be fetched until it expires.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AssetDownload)]
pub(super) struct DownloadView {
    /// A GET of this URL needs no token.
    url: String,
    expires_at: Time,
}

/// Redirects to the asset's file in the store, which is served under the name that it was uploaded with.
#[utoipa::path(
    get, path = "/app/assets/{id}/download", tag = "assets",
    params(
        ("id" = uuid::Uuid, Path),
        ("expires_in" = Option<u64>, Query, minimum = 1, description = "Seconds until the URL expires; the server's setting is the maximum and the default."),
        ("redirect" = Option<bool>, Query, description = "`false` returns the URL in the body instead of redirecting to it."),
        ("disposition" = Option<String>, Query, pattern = "^(attachment|inline)$", description = "`attachment` by default. `inline` takes effect only for types of images, audio and video that cannot run scripts."),
    ),
    responses(
        (status = 302, description = "The file is at `Location`", headers(("Location" = String, description = "A URL that expires"))),
        (status = 200, description = "With `redirect=false`", body = DownloadView),
        (status = 409, description = "`asset-not-ready`"),
    ),
    extensions(("x-permission" = json!("assets.view"))),
)]
pub(super) async fn download(
    engine: Data<Engine>,
    caller: Caller,
    id: Path<String>,
    query: Query<DownloadQuery>,
) -> Answer {
    admit(&engine, &caller, Permission::AssetsView).await?;
    let query = query.parse()?;
    let wanted =
        Download { expires_in: query.expires_in, disposition: query.disposition.map(Into::into).unwrap_or_default() };
    let signed = asset::download(&engine, &caller, id_of(&id)?, wanted).await?;
    // Anyone who has the URL can read the file.
    let no_store = (header::CACHE_CONTROL, "no-store");
    if query.redirect == Some(false) {
        let view = DownloadView { url: signed.url, expires_at: Time(signed.expires_at) };
        return Ok(HttpResponse::Ok().insert_header(no_store).json(view));
    }
    Ok(HttpResponse::Found().insert_header(no_store).insert_header((header::LOCATION, signed.url)).finish())
}
