use http::HeaderName;
use serde::Deserialize;
use url::Url;

use super::Complaints;

/// Which web pages may call the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins as browsers send them. An empty list allows none, an entry `*` allows any.
    pub allowed_origins: Vec<String>,
    /// Headers that these pages may send in addition to those of the API. An entry `*` allows any.
    pub allowed_headers: Vec<String>,
}

impl Cors {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        for origin in &self.allowed_origins {
            // A browser compares byte for byte: `https://a.example/` with its slash would never match.
            let exact = Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
            complaints.unless(origin == "*" || exact, || {
                format!(
                    "cors.allowed_origins: {origin:?} is not an origin such as https://app.example.com (lower case, no \
                     path, no default port)"
                )
            });
        }
        for name in &self.allowed_headers {
            complaints.unless(name == "*" || HeaderName::from_bytes(name.as_bytes()).is_ok(), || {
                format!("cors.allowed_headers: {name:?} is not the name of a header")
            });
        }
    }
}
