use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::Engine;
use crate::session;

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReceiptKeys)]
pub(crate) struct KeysView {
    #[schema(value_type = Vec<Object>)]
    keys: Vec<session::PublicKey>,
}

/// Returns the public key that verifies receipts. It does not change.
#[utoipa::path(
    get, path = "/.well-known/quaymaster-keys.json", tag = "uploads", security(()),
    responses((status = 200, description = "A JSON Web Key Set", body = KeysView)),
)]
pub(crate) async fn keys(engine: Data<Engine>) -> HttpResponse {
    HttpResponse::Ok().json(KeysView { keys: session::public_keys(&engine.keys).keys })
}
