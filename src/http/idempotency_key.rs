use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderValue;
use actix_web::{FromRequest, HttpRequest};

use super::rules;
use crate::error::FieldError;

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
    pub fn parse(self) -> Result<Option<String>, FieldError> {
        let wrong = |code, detail: &str| FieldError::new(NAME, code, detail);
        let [value] = self.0.as_slice() else {
            return if self.0.is_empty() { Ok(None) } else { Err(wrong("duplicate", "must be sent only once")) };
        };
        let text = value.to_str().map_err(|_| wrong("invalid-character", "must be printable ASCII"))?;
        match rules::idempotency_key(text) {
            Ok(()) => Ok(Some(text.to_owned())),
            Err(error) if error.code == "too-long" => Err(wrong("too-long", "must be at most 128 characters")),
            Err(_) => Err(wrong("invalid-character", "must be 1 to 128 printable ASCII characters")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(values: &[&[u8]]) -> Result<Option<String>, FieldError> {
        IdempotencyKey(values.iter().map(|value| HeaderValue::from_bytes(value).unwrap()).collect()).parse()
    }

    #[test]
    fn a_key_is_one_short_line_of_ascii() {
        assert_eq!(parse(&[]).unwrap(), None);
        assert_eq!(parse(&[b"row 3"]).unwrap().as_deref(), Some("row 3"));
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
