//! `GET /app/uploads/{id}/receipt`, and the key that receipts are verified with.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::problem::Answer;
use super::{admit, session_of};
use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::event;

/// A receipt of an upload, readable and signed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(super) struct ReceiptView {
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
pub(super) async fn receipt(engine: Data<Engine>, caller: Caller, id: Path<String>) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let receipt = event::receipt(&engine, &caller, session_of(&id)?).await?;
    Ok(HttpResponse::Ok().json(ReceiptView { receipt: receipt.claims, jws: receipt.jws }))
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReceiptKeys)]
pub(super) struct KeysView {
    #[schema(value_type = Vec<Object>)]
    keys: Vec<event::PublicKey>,
}

/// Returns the public key that verifies receipts. It does not change.
#[utoipa::path(
    get, path = "/.well-known/quaymaster-keys.json", tag = "uploads", security(()),
    responses((status = 200, description = "A JSON Web Key Set", body = KeysView)),
)]
pub(super) async fn keys(engine: Data<Engine>) -> HttpResponse {
    HttpResponse::Ok().json(KeysView { keys: event::public_keys(&engine.keys).keys })
}
