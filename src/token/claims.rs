//! Reads signed claims (RFC 7519, section 4), at the places where the issuer puts them.

use serde_json::{Map, Value};

use crate::caller::Brands;

const WRONG_TYPE: &str = "a claim of the token has the wrong type";

/// The claims of one token. A claim that is null counts as absent.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// # Errors
    /// It is not a JSON object. The errors of this type say in plain ASCII what is wrong with the token.
    pub(super) fn read(json: &[u8]) -> Result<Self, &'static str> {
        serde_json::from_slice(json).map(Self).map_err(|_| "the token has no JSON claims")
    }

    /// # Errors
    /// The claim is not text.
    pub(super) fn text(&self, place: &str) -> Result<Option<&str>, &'static str> {
        self.at(place).map(|value| value.as_str().ok_or(WRONG_TYPE)).transpose()
    }

    /// A NumericDate: seconds since 1970, perhaps with a fraction.
    ///
    /// # Errors
    /// The claim is not a number.
    pub(super) fn time(&self, place: &str) -> Result<Option<f64>, &'static str> {
        self.at(place).map(|value| value.as_f64().ok_or(WRONG_TYPE)).transpose()
    }

    /// # Errors
    /// The claim is not a list of texts.
    pub(super) fn texts(&self, place: &str) -> Result<Option<Vec<&str>>, &'static str> {
        self.at(place).map(texts).transpose()
    }

    /// One text, or a list of them.
    ///
    /// # Errors
    /// The claim is neither.
    pub(super) fn text_or_texts(&self, place: &str) -> Result<Option<Vec<&str>>, &'static str> {
        match self.at(place) {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(vec![one])),
            Some(more) => texts(more).map(Some),
        }
    }

    /// A list of ids, or `"*"`.
    ///
    /// # Errors
    /// The claim is neither.
    pub(super) fn brands(&self, place: &str) -> Result<Option<Brands>, &'static str> {
        match self.at(place) {
            None => Ok(None),
            Some(Value::String(all)) if all == "*" => Ok(Some(Brands::All)),
            Some(ids) => {
                let ids = texts(ids)?.into_iter().map(|id| id.parse().map_err(|_| WRONG_TYPE));
                Ok(Some(Brands::These(ids.collect::<Result<_, _>>()?)))
            }
        }
    }

    fn at(&self, place: &str) -> Option<&Value> {
        find(&self.0, place).filter(|value| !value.is_null())
    }
}

fn texts(value: &Value) -> Result<Vec<&str>, &'static str> {
    let items = value.as_array().ok_or(WRONG_TYPE)?;
    items.iter().map(|item| item.as_str().ok_or(WRONG_TYPE)).collect()
}

/// Returns the claim of this name. If there is none, follows the dots in the name into nested objects, the longest prefix
/// first. Names may have dots of their own: many providers prefix theirs with a URL.
fn find<'a>(claims: &'a Map<String, Value>, place: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(place) {
        return Some(value);
    }
    place.rmatch_indices('.').find_map(|(dot, _)| find(claims.get(&place[..dot])?.as_object()?, &place[dot + 1..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_found_by_its_name_and_inside_of_others() {
        let claims = json!({
            "sub": "ann",
            "https://example.com/tenant": "one",
            "app_metadata": { "tenant_id": "two", "a.b": { "c": "three" } },
            "app_metadata.roles": { "x": "four" },
            "a.b": "whole",
            "a": { "b": "inside" },
            "nothing": null,
            "https://example.com/app": { "brand": "five" },
        });
        let claims = Claims::read(claims.to_string().as_bytes()).unwrap();
        let text = |place: &str| claims.text(place).unwrap();
        assert_eq!(text("sub"), Some("ann"));
        assert_eq!(text("https://example.com/tenant"), Some("one"));
        assert_eq!(text("app_metadata.tenant_id"), Some("two"));
        assert_eq!(text("app_metadata.a.b.c"), Some("three"));
        assert_eq!(text("app_metadata.roles.x"), Some("four"));
        assert_eq!(text("a.b"), Some("whole"), "a claim of exactly this name comes first");
        assert_eq!(text("https://example.com/app.brand"), Some("five"));
        for absent in ["nothing", "nothing.at.all", "sub.x", "app_metadata.", ".sub", "app_metadata.a", "", "."] {
            assert_eq!(text(absent), None, "{absent:?}");
        }
        assert_eq!(claims.text("app_metadata"), Err(WRONG_TYPE));
    }
}
