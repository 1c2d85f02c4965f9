use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderValue;
use actix_web::{FromRequest, HttpRequest};

use super::problem::FieldError;
use crate::input::{self, Text as _};

const NAME: &str = "Idempotency-Key";

/// The `Idempotency-Key` header, not parsed yet: permissions are checked first.
pub struct IdempotencyKey(Vec<HeaderValue>);

impl FromRequest for IdempotencyKey {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(req.headers().get_all(NAME).cloned().collect())))
    }
}

impl IdempotencyKey {
    /// # Errors
    /// The key is empty, too long, not printable ASCII or sent twice. The error's pointer is the header's name.
    pub fn parse(self) -> Result<Option<input::IdempotencyKey>, FieldError> {
        let [value] = self.0.as_slice() else {
            let twice = || FieldError::new(NAME, "duplicate", "must be sent only once");
            return if self.0.is_empty() { Ok(None) } else { Err(twice()) };
        };
        // A header that is no text is not ASCII either.
        let text = value.to_str().unwrap_or_default();
        input::IdempotencyKey::parse(text).map(Some).map_err(|wrong| FieldError::of(NAME, wrong))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(values: &[&[u8]]) -> Result<Option<input::IdempotencyKey>, FieldError> {
        IdempotencyKey(values.iter().map(|value| HeaderValue::from_bytes(value).unwrap()).collect()).parse()
    }

    #[test]
    fn a_key_is_one_short_line_of_ascii() {
        assert_eq!(parse(&[]).unwrap(), None);
        assert_eq!(parse(&[b"row 3"]).unwrap().map(input::IdempotencyKey::into_string).as_deref(), Some("row 3"));
        for (values, code) in [
            (&[b"a".as_slice(), b"a"][..], "duplicate"),
            (&[b""], "invalid-character"),
            (&[b"\xfc"], "invalid-character"),
            (&[b"a\tb"], "invalid-character"),
            (&[&[b'x'; 129]], "too-long"),
        ] {
            let error = parse(values).unwrap_err();
            assert_eq!((error.pointer.as_str(), error.code), (NAME, code), "{values:?}");
        }
    }
}
