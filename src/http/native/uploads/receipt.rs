use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::http::caller::admit;
use crate::http::path::session_of;
use crate::http::problem::Answer;
use crate::session;

/// A receipt of an upload, readable and signed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(crate) struct ReceiptView {
    /// The signed claims.
    #[schema(value_type = Object)]
    receipt: Value,
    /// The same as a JWS in compact form (RFC 7515), signed by EdDSA. A key of `/.well-known/quaymaster-keys.json` verifies
    /// it.
    jws: String,
}

/// Returns a signed receipt of an upload that has ended, in whichever terminal state.
#[utoipa::path(
    get, path = "/app/uploads/{id}/receipt", tag = "uploads", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 200, description = "The receipt", body = ReceiptView),
        (status = 409, description = "`illegal-transition`: the upload has not ended yet"),
    ),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(crate) async fn receipt(engine: Data<Engine>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let receipt = session::receipt(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(ReceiptView { receipt: receipt.claims, jws: receipt.jws }))
}
