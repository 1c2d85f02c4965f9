use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Data, Path};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use crate::asset::{self, Disposition, Download};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::path::id_of;
use crate::http::problem::Answer;
use crate::http::query::Query;
use crate::views::Time;

/// The query parameters of a download.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct DownloadQuery {
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
pub(crate) struct DownloadView {
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
pub(crate) async fn download(
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
