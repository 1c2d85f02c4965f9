//! What the server answered, and what a story says about it.

use reqwest::header::HeaderMap;
use serde_json::Value;

/// One answer, whole. Its checks fail with the request and the body in the message.
#[derive(Clone, Debug)]
pub struct Reply {
    /// `POST /app/uploads/initiate`, for messages.
    pub request: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub async fn read(request: String, response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap().to_vec();
        Self { request, status, headers, body }
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        self.is(200)
    }

    #[track_caller]
    pub fn created(&self) -> Value {
        self.is(201)
    }

    #[track_caller]
    pub fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        self.json()
    }

    /// The problem document, which is also checked to be a good one.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self}");
        assert_eq!(problem["status"], status, "{self}");
        assert_eq!(problem["type"], format!("/problems/{code}"), "{self}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self}");
        for member in ["title", "detail", "instance"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {self}");
        }
        match status {
            401 => assert!(!self.header("www-authenticate").is_empty(), "{self}"),
            405 => assert!(!self.header("allow").is_empty(), "{self}"),
            429 | 503 => assert!(self.header("retry-after").parse::<u32>().is_ok_and(|secs| secs > 0), "{self}"),
            _ => {}
        }
        problem
    }

    /// A 422 that names exactly these fields: `(pointer, code)`, in any order.
    #[track_caller]
    pub fn is_invalid(&self, fields: &[(&str, &str)]) -> Value {
        let problem = self.is_problem(422, "validation-failed");
        let mut found: Vec<_> = problem["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("no errors: {self}"))
            .iter()
            .map(|e| (e["pointer"].as_str().unwrap_or_default(), e["code"].as_str().unwrap_or_default()))
            .collect();
        let mut wanted = fields.to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{self}");
        problem
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {}: {}", self.request, self.status, String::from_utf8_lossy(&self.body))
    }
}
