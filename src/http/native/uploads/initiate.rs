use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use entity::BrandId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use validator::Validate;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::body::Body;
use crate::http::caller::admit;
use crate::http::fields::Budget;
use crate::http::idempotency_key::IdempotencyKey;
use crate::http::middleware::name_session;
use crate::http::problem::{Answer, FieldError, Problem};
use crate::http::rules::{self, required, typed};
use crate::input::{self, FileName, MediaType, Metadata, Reference, Sha256};
use crate::session::{self, Initiated, NewUpload};
use crate::views::{PutView, SessionView};

/// Makes the two shapes of a file to upload from one list of fields; only a single file names its batch itself. (serde
/// cannot refuse unknown fields of a flattened struct.)
macro_rules! file_request {
    ($(#[$doc:meta])* $name:ident { $($extra:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, Validate, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            /// Kept unchanged: 1 to 255 Unicode scalars, no control character, `/` or `\`.
            #[schema(required, nullable = false, format = "file-name")]
            #[validate(required, custom(function = "rules::text::<FileName>"))]
            file_name: Option<String>,
            /// Bytes.
            #[schema(required, nullable = false, minimum = 0, maximum = 5497558138880_i64)]
            #[validate(required, range(min = 0))]
            file_size: Option<i64>,
            /// A media type (RFC 9110); `application/octet-stream` if absent or empty.
            #[schema(format = "media-type")]
            #[validate(custom(function = "rules::text::<MediaType>"))]
            mime_type: Option<String>,
            /// May be left out if the caller holds exactly one brand.
            #[schema(value_type = Option<Uuid>)]
            brand_id: Option<BrandId>,
            /// The caller's own name for the file; unique for a user within a brand and `batch_reference`.
            #[schema(format = "reference")]
            #[validate(custom(function = "rules::text::<Reference>"))]
            client_reference: Option<String>,
            $($extra)*
            /// Identifies the same file in a later run.
            #[schema(format = "reference")]
            #[validate(custom(function = "rules::text::<Reference>"))]
            fingerprint: Option<String>,
            /// 64 hex digits. In a direct upload it is sent to the store: a store that checks it refuses other bytes.
            #[schema(format = "sha256")]
            #[validate(custom(function = "rules::text::<Sha256>"))]
            checksum_sha256: Option<String>,
            /// Up to 4 KiB as compact JSON.
            #[schema(value_type = Option<Object>)]
            #[validate(custom(function = "rules::metadata"))]
            metadata: Option<Map<String, Value>>,
        }

        impl $name {
            /// Checks the size against the limits of the settings and the store, which the rules above do not know.
            pub(crate) fn wrong_size(&self, engine: &Engine) -> Option<FieldError> {
                let wrong = session::wrong_size(engine, u64::try_from(self.file_size?).ok()?)?;
                Some(FieldError::of("/file_size", wrong))
            }

            /// # Errors
            /// The fields that break their rules.
            pub(crate) fn into_new(
                self,
                batch_reference: Option<Reference>,
                brand: Option<BrandId>,
                idempotency_key: Option<input::IdempotencyKey>,
            ) -> Result<NewUpload, Vec<FieldError>> {
                let mime_type: Option<MediaType> = typed("/mime_type", self.mime_type)?;
                let metadata = self.metadata.map(Metadata::parse).transpose();
                Ok(NewUpload {
                    file_name: required("/file_name", typed("/file_name", self.file_name)?)?,
                    file_size: required("/file_size", self.file_size)?.unsigned_abs(),
                    mime_type: mime_type.map(MediaType::or_default).unwrap_or_default(),
                    brand_id: self.brand_id.or(brand),
                    client_reference: typed("/client_reference", self.client_reference)?,
                    batch_reference,
                    fingerprint: typed("/fingerprint", self.fingerprint)?,
                    checksum_sha256: typed("/checksum_sha256", self.checksum_sha256)?,
                    metadata: metadata.map_err(|wrong| vec![FieldError::of("/metadata", wrong)])?.unwrap_or_default(),
                    idempotency_key,
                })
            }
        }
    };
}

file_request! {
    /// One file of a batch.
    FileRequest {}
}
file_request! {
    /// A single file to upload.
    InitiateRequest {
        /// The batch that the file belongs to.
        #[schema(format = "reference")]
        #[validate(custom(function = "rules::text::<Reference>"))]
        batch_reference: Option<String>,
    }
}

/// The session and, if it is direct, where to send the bytes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Initiated)]
pub(crate) struct InitiatedView {
    #[serde(flatten)]
    session: SessionView,
    #[serde(flatten)]
    put: PutView,
}

impl From<Initiated> for InitiatedView {
    fn from(initiated: Initiated) -> Self {
        Self { session: initiated.session.into(), put: initiated.put.into() }
    }
}

/// Opens an upload session, or returns the one that the same references have opened.
#[utoipa::path(
    post, path = "/app/uploads/initiate", tag = "uploads", request_body = InitiateRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Up to 128 printable ASCII characters.", format = "idempotency-key")),
    responses(
        (status = 201, description = "Opened", body = InitiatedView),
        (status = 200, description = "The session existed already", body = InitiatedView),
        (status = 409, description = "`reference-conflict`, `quota-exceeded`, `tenant-suspended`"),
    ),
    extensions(("x-permission" = json!("uploads.create"))),
)]
pub(crate) async fn initiate(
    engine: Data<Engine>,
    caller: Caller,
    key: IdempotencyKey,
    body: Body<InitiateRequest>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsCreate).await?;
    let (mut file, key) = body.parse_with(key.parse(), &mut Budget::default(), |file| file.wrong_size(&engine))?;
    let batch_reference = typed("/batch_reference", file.batch_reference.take()).map_err(Problem::invalid)?;
    let new = file.into_new(batch_reference, None, key).map_err(Problem::invalid)?;
    let done = session::initiate(&engine, &caller, new).await?;
    name_session(done.session.id);
    let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(HttpResponse::build(status).json(InitiatedView::from(done)))
}
