//! A request's query string, read as strictly as a body: unknown parameters are errors, and all errors are reported at once.

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::form_urlencoded;
use validator::Validate;

use super::fields::{self, Budget, Form, shortened};
use super::problem::{FieldError, Problem};

/// Items of a page if the query has no `limit`.
pub const LIMIT_DEFAULT: u64 = 50;

/// The query string, not parsed yet: permissions are checked first.
pub struct Query<T> {
    text: String,
    shape: PhantomData<fn() -> T>,
}

impl<T> FromRequest for Query<T> {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self { text: req.query_string().to_owned(), shape: PhantomData }))
    }
}

impl<T: DeserializeOwned + Validate> Query<T> {
    /// # Errors
    /// `validation-failed` with every parameter that is unknown, occurs twice or is invalid; pointers are `?name`.
    pub fn parse(self) -> Result<T, Problem> {
        let mut parameters = Map::new();
        let mut twice = Vec::new();
        for (name, value) in form_urlencoded::parse(self.text.as_bytes()) {
            if parameters.insert(name.to_string(), Value::String(value.into_owned())).is_some() {
                twice.push(FieldError::new(format!("?{}", shortened(&name)), "duplicate", "must be given only once"));
            }
        }
        let mut budget = Budget::default();
        let read = fields::read(&Value::Object(parameters), Form::Query, &mut budget, |_| None);
        budget.spend(&mut twice, 0);
        match read {
            Ok(read) if twice.is_empty() => Ok(read),
            Ok(_) => Err(Problem::invalid(twice)),
            Err(mut errors) => {
                errors.append(&mut twice);
                Err(Problem::invalid(errors))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::Deserialize;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    #[serde(deny_unknown_fields)]
    struct Page {
        status: Option<String>,
        brand_id: Option<Uuid>,
        #[validate(range(min = 1, max = 200))]
        limit: Option<u32>,
        #[validate(length(max = 5))]
        cursor: Option<String>,
    }

    fn parse(text: &str) -> Result<Page, Value> {
        let query = Query { text: text.to_owned(), shape: PhantomData };
        query.parse().map_err(|problem| serde_json::from_slice::<Value>(&problem.body(None)).unwrap()["errors"].clone())
    }

    fn wrong(text: &str) -> Vec<(String, String)> {
        let errors = parse(text).unwrap_err();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        errors.as_array().unwrap().iter().map(|error| (text(&error["pointer"]), text(&error["code"]))).collect()
    }

    #[test]
    fn a_list_is_asked_for() {
        let page = parse("status=UPLOADING%2CFAILED&limit=200&cursor=a+b").unwrap();
        assert_eq!(page.status.as_deref(), Some("UPLOADING,FAILED"));
        assert_eq!((page.brand_id, page.limit, page.cursor.as_deref()), (None, Some(200), Some("a b")));
        assert!(parse("").unwrap().limit.is_none());
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let pairs = |expected: Value| serde_json::from_value::<Vec<(String, String)>>(expected).unwrap();
        assert_eq!(
            wrong("colour=red&limit=many&brand_id=x&cursor=abcdef"),
            pairs(json!([
                ["?brand_id", "invalid-format"],
                ["?colour", "unknown-field"],
                ["?limit", "wrong-type"],
                ["?cursor", "too-long"],
            ]))
        );
        assert_eq!(wrong("limit=0"), pairs(json!([["?limit", "out-of-range"]])));
        assert_eq!(wrong("limit=-1"), pairs(json!([["?limit", "out-of-range"]])));
        assert_eq!(wrong("limit=1&limit=2"), pairs(json!([["?limit", "duplicate"]])));
    }
}
