//! Cross-origin requests: the rules of a bucket, and how they apply to a request.
//!
//! Before a request, browsers send an unsigned OPTIONS (preflight). It is answered here, before the S3 service.
//! Every other answer gets its CORS headers here too, including errors: without them a page cannot read why it failed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use s3s::dto::CORSRule;
use s3s::{Body, S3Error, S3ErrorCode, S3Result, s3_error};
use serde::{Deserialize, Serialize};

/// S3's limit on the rules of one bucket.
const RULES_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub id: Option<String>,
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub max_age_secs: Option<i32>,
}

impl Rule {
    /// # Errors
    /// InvalidRequest for a method that S3 does not allow, or a second `*` in an origin or a header; MalformedXML without an
    /// origin or a method.
    fn parse(rule: CORSRule) -> S3Result<Self> {
        const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];
        let headers = rule.allowed_headers.unwrap_or_default();
        if let Some(method) = rule.allowed_methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(s3_error!(InvalidRequest, "Found unsupported HTTP method in CORS config: {method}"));
        }
        if let Some(pattern) = rule.allowed_origins.iter().chain(&headers).find(|one| one.matches('*').count() > 1) {
            return Err(s3_error!(InvalidRequest, "{pattern} can not have more than one wildcard."));
        }
        if rule.allowed_origins.is_empty() || rule.allowed_methods.is_empty() {
            return Err(s3_error!(MalformedXML, "A rule must name at least one origin and one method."));
        }
        Ok(Self {
            id: rule.id,
            origins: rule.allowed_origins,
            methods: rule.allowed_methods,
            headers,
            expose: rule.expose_headers.unwrap_or_default(),
            max_age_secs: rule.max_age_seconds,
        })
    }

    pub fn dto(&self) -> CORSRule {
        CORSRule {
            id: self.id.clone(),
            allowed_origins: self.origins.clone(),
            allowed_methods: self.methods.clone(),
            allowed_headers: (!self.headers.is_empty()).then(|| self.headers.clone()),
            expose_headers: (!self.expose.is_empty()).then(|| self.expose.clone()),
            max_age_seconds: self.max_age_secs,
        }
    }

    fn allows(&self, origin: &str, method: &str, headers: &[&str]) -> bool {
        self.origins.iter().any(|pattern| covers(pattern, origin))
            && self.methods.iter().any(|allowed| allowed == method)
            && headers.iter().all(|header| {
                self.headers.iter().any(|pattern| covers(&pattern.to_ascii_lowercase(), &header.to_ascii_lowercase()))
            })
    }
}

/// # Errors
/// As [`Rule::parse`]; MalformedXML for no rule, or more than 100.
pub fn parse(rules: Vec<CORSRule>) -> S3Result<Vec<Rule>> {
    if rules.is_empty() || rules.len() > RULES_MAX {
        return Err(s3_error!(MalformedXML, "A CORS configuration must have between 1 and {RULES_MAX} rules."));
    }
    rules.into_iter().map(Rule::parse).collect()
}

/// Whether `pattern`, with at most one `*`, covers `text`.
fn covers(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.len() >= head.len() + tail.len() && text.starts_with(head) && text.ends_with(tail),
    }
}

/// The rules of all buckets, in memory: this process is the only one that changes them.
#[derive(Default)]
pub struct Cors(RwLock<HashMap<String, Arc<[Rule]>>>);

impl Cors {
    pub fn set(&self, bucket: &str, rules: Option<Vec<Rule>>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match rules {
            Some(rules) => table.insert(bucket.to_owned(), rules.into()),
            None => table.remove(bucket),
        };
    }

    pub fn of(&self, bucket: &str) -> Option<Arc<[Rule]>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned()
    }

    /// Returns the answer to OPTIONS.
    pub fn preflight<B>(&self, request: &Request<B>) -> Response<Body> {
        let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let answer = match (text(header::ORIGIN), text(header::ACCESS_CONTROL_REQUEST_METHOD)) {
            (Some(origin), Some(method)) => {
                let asked: Vec<_> = text(header::ACCESS_CONTROL_REQUEST_HEADERS)
                    .unwrap_or_default()
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .collect();
                self.grant(request.uri().path(), origin, method, &asked)
            }
            _ => Err(s3_error!(InvalidRequest, "Insufficient information. Origin request header needed.")),
        };
        match answer {
            Ok(headers) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.headers_mut() = headers;
                response
            }
            Err(error) => refusal(error),
        }
    }

    /// Returns the headers of any other answer; `None` if the request has no origin, or no rule allows it.
    pub fn headers<B>(&self, request: &Request<B>) -> Option<HeaderMap> {
        let origin = request.headers().get(header::ORIGIN)?.to_str().ok()?;
        self.grant(request.uri().path(), origin, request.method().as_str(), &[]).ok()
    }

    fn grant(&self, path: &str, origin: &str, method: &str, asked: &[&str]) -> S3Result<HeaderMap> {
        let bucket = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let rules = self.of(bucket).ok_or_else(|| forbidden("CORS is not enabled for this bucket."))?;
        let rule = rules
            .iter()
            .find(|rule| rule.allows(origin, method, asked))
            .ok_or_else(|| forbidden("This CORS request is not allowed."))?;

        let mut headers = HeaderMap::new();
        let anyone = rule.origins.iter().any(|origin| origin == "*");
        put(&mut headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, if anyone { "*" } else { origin });
        put(&mut headers, header::ACCESS_CONTROL_ALLOW_METHODS, &rule.methods.join(", "));
        if !asked.is_empty() {
            put(&mut headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &asked.join(", ").to_ascii_lowercase());
        }
        if let Some(secs) = rule.max_age_secs {
            put(&mut headers, header::ACCESS_CONTROL_MAX_AGE, &secs.to_string());
        }
        // A page that cannot read the ETag cannot upload by parts.
        let mut expose = rule.expose.clone();
        if !expose.iter().any(|name| name.eq_ignore_ascii_case("etag")) {
            expose.push("ETag".to_owned());
        }
        put(&mut headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &expose.join(", "));
        headers.insert(
            header::VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
        );
        Ok(headers)
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // A rule with a character that is invalid in a header grants nothing.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn forbidden(why: &'static str) -> S3Error {
    let mut error =
        S3Error::with_message(S3ErrorCode::Custom("AccessForbidden".into()), format!("CORSResponse: {why}"));
    error.set_status_code(StatusCode::FORBIDDEN);
    error
}

/// Turns an error into an answer, for requests that never reach the service.
pub fn refusal(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// Treats every OPTIONS request as a preflight.
pub fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_its_star_stands_for() {
        assert!(covers("https://app.example", "https://app.example"));
        assert!(!covers("https://app.example", "https://app.example.evil"));
        assert!(covers("https://*.example", "https://a.example"));
        assert!(!covers("https://*.example", "https://example"));
        assert!(!covers("aba*aba", "aba"));
        assert!(covers("*", "null"));
        assert!(covers("x-amz-*", "x-amz-meta-a"));
    }
}
