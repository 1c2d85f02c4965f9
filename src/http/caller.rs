//! Who asks: the token of a request.

use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};

use super::auth::Verifier;
use super::problem::Problem;
use crate::caller::Caller;

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let verifier = request.app_data::<Data<Verifier>>().cloned();
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        Box::pin(async move {
            let token = token.ok_or_else(|| Problem::Unauthenticated("send Authorization: Bearer".to_owned()))?;
            let verifier = verifier.ok_or(Problem::Internal)?;
            verifier.verify(&token).await.map_err(Problem::Unauthenticated)
        })
    }
}
