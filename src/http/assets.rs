//! `/app/assets`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use entity::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use validator::Validate;

use super::body::{self, Body};
use super::problem::{Answer, Document};
use super::views::AssetView;
use super::{admit, id_of, rules};
use crate::asset;
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
    /// Must agree with what the store holds, where given.
    #[schema(max_items = 10000)]
    #[validate(length(max = 10_000), nested)]
    parts: Option<Vec<CompletedPart>>,
    /// The file's name where not given.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    #[validate(length(min = 1, max = 255), custom(function = "rules::no_control"))]
    title: Option<String>,
    /// Its members replace the session's of the same name.
    #[schema(value_type = Option<Object>)]
    #[validate(custom(function = "rules::metadata"))]
    metadata: Option<rules::Object>,
}

// `Serialize` is what validator asks of a nested shape.
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

/// Every byte is in the store; make it an asset. Safe to repeat.
#[utoipa::path(
    post, path = "/app/assets/upload/complete", tag = "assets", request_body = CompleteRequest,
    responses(
        (status = 201, description = "Made", body = AssetView),
        (status = 200, description = "Made before", body = AssetView),
        (status = 409, description = "`upload-incomplete`, `parts-mismatch`, `illegal-transition`, `session-expired`", body = Document, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("assets.create"))),
)]
pub(super) async fn complete(
    engine: Data<Engine>,
    caller: Caller,
    body: Body<CompleteRequest, { body::PARTS }>,
) -> Answer {
    admit(&engine, &caller, Permission::AssetsCreate).await?;
    let body = body.parse()?;
    let id = body.upload_session_id.ok_or(Error::NotFound)?;
    let completion = Completion {
        parts: body.parts.map(|parts| {
            parts.into_iter().map(|p| (p.part_number.unwrap_or_default(), p.etag.unwrap_or_default())).collect()
        }),
        title: body.title,
        metadata: body.metadata.map(|metadata| Value::Object(metadata.0)),
    };
    let (asset, made) = session::complete(&engine, &caller, id, &completion).await?;
    let mut answer = if made { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.json(AssetView::from(asset)))
}

/// The asset, for everyone who holds its brand.
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
