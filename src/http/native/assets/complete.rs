use actix_web::HttpResponse;
use actix_web::web::Data;
use entity::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use validator::Validate;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::Error;
use crate::http::body::{self, Body};
use crate::http::caller::admit;
use crate::http::door::Door;
use crate::http::in_flight::ShareOwner;
use crate::http::middleware::name_session;
use crate::http::problem::{Answer, FieldError, Problem};
use crate::http::rules::{self, required, typed};
use crate::input::{ClientPart, Etag, Metadata, Title};
use crate::session::{self, Completion};
use crate::views::AssetView;

#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteRequest {
    #[schema(required, nullable = false, value_type = uuid::Uuid)]
    #[validate(required)]
    upload_session_id: Option<SessionId>,
    /// If given, must match the parts that the store holds.
    #[schema(max_items = 10000)]
    #[validate(length(max = 10_000), nested)]
    parts: Option<Vec<CompletedPart>>,
    /// The file's name by default.
    #[schema(format = "title")]
    #[validate(custom(function = "rules::text::<Title>"))]
    title: Option<String>,
    /// Its members replace the session's members of the same name.
    #[schema(value_type = Option<Object>)]
    #[validate(custom(function = "rules::metadata"))]
    metadata: Option<Map<String, Value>>,
}

impl CompleteRequest {
    /// # Errors
    /// The fields that break their rules.
    pub(crate) fn into_completion(self) -> Result<Completion, Vec<FieldError>> {
        let parts = self.parts.map(|parts| {
            parts.into_iter().enumerate().map(|(index, part)| part.into_input(&format!("/parts/{index}"))).collect()
        });
        let metadata = self.metadata.map(Metadata::parse).transpose();
        Ok(Completion {
            parts: parts.transpose()?,
            title: typed("/title", self.title)?,
            metadata: metadata.map_err(|wrong| vec![FieldError::of("/metadata", wrong)])?,
        })
    }
}

// validator requires `Serialize` of a nested shape.
#[derive(Debug, Deserialize, Serialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletedPart {
    #[schema(required, nullable = false, minimum = 1, maximum = 10000)]
    #[validate(required, range(min = 1, max = 10_000))]
    part_number: Option<i64>,
    /// With or without quotes.
    #[schema(required, nullable = false, format = "etag")]
    #[validate(required, custom(function = "rules::text::<Etag>"))]
    etag: Option<String>,
}

impl CompletedPart {
    fn into_input(self, pointer: &str) -> Result<ClientPart, Vec<FieldError>> {
        let etag = format!("{pointer}/etag");
        Ok(ClientPart {
            number: required(&format!("{pointer}/part_number"), self.part_number)?,
            etag: required(&etag, typed(&etag, self.etag)?)?,
        })
    }
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
pub(crate) async fn complete(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    body: Body<CompleteRequest, { body::PARTS }>,
) -> Answer {
    admit(&engine, &caller, Permission::AssetsCreate).await?;
    let body = door.heavy.run(ShareOwner::Tenant(caller.tenant), body.size(), move || body.parse()).await??;
    let id = body.upload_session_id.ok_or(Error::NotFound)?;
    name_session(id);
    let completion = body.into_completion().map_err(Problem::invalid)?;
    let (asset, made) = session::complete(&engine, &caller, id, &completion).await?;
    let mut answer = if made { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.json(AssetView::from(asset)))
}
