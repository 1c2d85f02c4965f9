use http::HeaderName;
use serde::Deserialize;
use url::Url;

use super::Complaints;

/// Which web pages may call the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins as browsers send them; none where empty, any where one is `*`.
    pub allowed_origins: Vec<String>,
    /// Headers that they may send beside those that the API takes; any where one is `*`.
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
