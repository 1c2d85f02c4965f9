//! The calls of the native API that a push makes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::completions::Completions;
use super::error::{Error, Problem};
use super::retry::Retry;
use super::wire::{
    Announcement, Asset, BatchAnswer, Brand, Brands, Completed, PartUrl, PartUrlsAnswer, Resume, Session,
};

/// Long, because the server answers only when it is done: it opens up to 1,000 storage uploads for one batch, and may
/// assemble thousands of parts for one completion. Both requests may be repeated.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
/// No URL is used for a request that begins in the last 60 seconds of the URL's life, or in the last quarter if that is
/// shorter.
const URL_MARGIN: Duration = Duration::from_secs(60);

pub struct Api {
    http: Client,
    base: String,
    authorization: HeaderValue,
    completions: Completions,
    pub retry: Retry,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    asked_at: Instant,
}

impl Api {
    /// `token` consists of visible ASCII characters. A path in `server` is a prefix of the API's paths.
    pub fn new(http: Client, server: &Url, token: &str, patience: Duration) -> Self {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut authorization = bearer.expect("visible ASCII is fit for a header");
        authorization.set_sensitive(true);
        let base = server.as_str().trim_end_matches('/').to_owned();
        Self { http, base, authorization, completions: Completions::default(), retry: Retry::new(patience) }
    }

    /// Announces up to 1,000 files, and returns the results in the same order. A repeated request with the same references
    /// finds the same sessions, so a lost answer costs nothing.
    pub async fn initiate_batch(
        &self,
        batch: &str,
        brand: Option<&str>,
        files: &[Announcement<'_>],
    ) -> Result<Vec<Result<Session, Problem>>, Error> {
        let mut body = json!({ "batch_reference": batch, "files": files });
        if let Some(brand) = brand {
            body["brand_id"] = json!(brand);
        }
        // 422 if no file is accepted: the answer still has a result for each file, unless the batch itself is wrong.
        let answer = self.ask(Method::POST, "/app/uploads/initiate-batch", Some(&body), |answer| {
            answer.status.is_success() || answer.json::<BatchAnswer>().is_ok()
        });
        let answer = answer.await?;
        let mut results: Vec<Option<Result<Session, Problem>>> = files.iter().map(|_| None).collect();
        for item in answer.json::<BatchAnswer>()?.uploads {
            let slot = results.get_mut(item.index).ok_or_else(|| nonsense("a result for an unknown file"))?;
            *slot = match (item.upload, item.problem) {
                (Some(mut session), _) => {
                    session.direct.good_until = answer.good_until(session.direct.upload_url_expires_at);
                    Some(Ok(session))
                }
                (None, problem) => problem.map(Err),
            };
        }
        results.into_iter().collect::<Option<_>>().ok_or_else(|| nonsense("a file of the batch without a result"))
    }

    /// Returns what the store holds of a session, and a new URL for a direct one.
    pub async fn resume(&self, id: &str) -> Result<Resume, Error> {
        let answer = self.ask_session(Method::GET, &format!("/app/uploads/{id}/resume"), None).await?;
        let mut resume: Resume = answer.json()?;
        resume.session.direct.good_until = answer.good_until(resume.session.direct.upload_url_expires_at);
        Ok(resume)
    }

    /// Returns URLs for these parts, and until when to use them; `None` if the server does not tell its time.
    pub async fn part_urls(&self, id: &str, numbers: &[u32]) -> Result<(Vec<PartUrl>, Option<Instant>), Error> {
        let path = format!("/app/uploads/{id}/multipart-part-urls");
        let body = json!({ "part_numbers": numbers });
        let answer = self.ask_session(Method::POST, &path, Some(&body)).await?;
        let urls: PartUrlsAnswer = answer.json()?;
        Ok((urls.parts, answer.good_until(Some(urls.expires_at))))
    }

    /// Tells the server that the upload is still active.
    pub async fn activity(&self, id: &str) -> Result<(), Error> {
        self.ask_session(Method::PUT, &format!("/app/uploads/{id}/activity"), None).await.map(drop)
    }

    /// Completes the session and returns its asset, or the asset that was made before. With `parts` the server compares the
    /// ETags that this client saw with those of the store.
    pub async fn complete(
        &self,
        id: &str,
        parts: Option<&[(u32, String)]>,
        more_to_come: bool,
    ) -> Result<Asset, Error> {
        let Some(parts) = parts else {
            let ask = async |sessions: &[String]| self.complete_batch(sessions).await;
            return self.retry.run(async || self.completions.complete(id, more_to_come, ask).await).await.map_err(fate);
        };
        // Assembling many parts may take long, so it has a request of its own.
        let parts: Vec<_> = parts.iter().map(|(n, etag)| json!({ "part_number": n, "etag": etag })).collect();
        let body = json!({ "upload_session_id": id, "parts": parts });
        let answer = self.ask_session(Method::POST, "/app/assets/upload/complete", Some(&body)).await?;
        Ok(Asset { shown: answer.json()?, facts: answer.json()? })
    }

    /// Sends one request for all sessions, without retries: the caller that waits for a session decides whether to retry.
    async fn complete_batch(&self, sessions: &[String]) -> Result<Vec<Result<Asset, Error>>, Error> {
        let uploads: Vec<_> = sessions.iter().map(|id| json!({ "upload_session_id": id })).collect();
        let body = Bytes::from(json!({ "uploads": uploads }).to_string());
        // 422 and 503 if no session was completed: the answer still has a result for each, unless the batch itself is wrong.
        let path = "/app/assets/upload/complete-batch";
        let answer = self.once(&Method::POST, path, Some(&body), &|answer: &Answer| {
            answer.status.is_success() || answer.json::<Completed>().is_ok()
        });
        let mut results: Vec<Option<Result<Asset, Error>>> = sessions.iter().map(|_| None).collect();
        for item in answer.await?.json::<Completed>()?.uploads {
            let slot = results.get_mut(item.index).ok_or_else(|| nonsense("a result for an unknown session"))?;
            *slot = match (item.asset, item.problem) {
                (Some(asset), _) => {
                    let facts = serde_json::from_value(asset.clone()).map_err(|error| nonsense(&error.to_string()))?;
                    Some(Ok(Asset { shown: asset, facts }))
                }
                (None, problem) => problem.map(|problem| Err(Error::Server(Box::new(problem)))),
            };
        }
        results.into_iter().collect::<Option<_>>().ok_or_else(|| nonsense("a session of the batch without a result"))
    }

    pub async fn cancel(&self, id: &str) -> Result<(), Error> {
        self.ask_session(Method::POST, &format!("/app/uploads/{id}/cancel"), None).await.map(drop)
    }

    /// Returns id and name of the brands that the token holds.
    pub async fn brands(&self) -> Result<Vec<Brand>, Error> {
        let answer = self.ask(Method::GET, "/app/brands", None, Answer::is_success).await?;
        Ok(answer.json::<Brands>()?.data)
    }

    /// Sends a request about a session. Refusals because of its state become [`Error::SessionOver`] or [`Error::Completed`].
    async fn ask_session(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Error> {
        self.ask(method, path, body, Answer::is_success).await.map_err(fate)
    }

    /// Sends one request, and retries it while that may help. An answer that is not `wanted` is an error.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Error> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.retry.run(async || self.once(&method, path, body.as_ref(), &wanted).await).await
    }

    async fn once(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Bytes>,
        wanted: &impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Error> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        request = request.header(AUTHORIZATION, self.authorization.clone()).timeout(ANSWER_WITHIN);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let asked_at = Instant::now();
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, body: response.bytes().await?, asked_at };
        if wanted(&answer) { Ok(answer) } else { Err(answer.problem()) }
    }
}

/// Translates a refusal into what it means for the session.
fn fate(error: Error) -> Error {
    let Error::Server(problem) = &error else { return error };
    match (problem.code.as_str(), problem.upload_status.as_deref()) {
        ("session-expired", _) => Error::SessionOver("has expired".into()),
        ("not-found", _) => Error::SessionOver("is gone".into()),
        ("illegal-transition", Some("COMPLETED")) => Error::Completed,
        ("illegal-transition", Some(status @ ("CANCELLED" | "FAILED"))) => Error::SessionOver(format!("is {status}")),
        _ => error,
    }
}

impl Answer {
    fn is_success(&self) -> bool {
        self.status.is_success()
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| nonsense(&error.to_string()))
    }

    /// Returns when to stop using a URL that ends at `end` by the server's clock. Counted from the `Date` of the answer, so
    /// that this machine's clock may be wrong.
    fn good_until(&self, end: Option<DateTime<Utc>>) -> Option<Instant> {
        let date = DateTime::parse_from_rfc2822(self.headers.get(DATE)?.to_str().ok()?).ok()?;
        let life = end?.signed_duration_since(date).to_std().unwrap_or(Duration::ZERO);
        Some(self.asked_at + life - URL_MARGIN.min(life / 4))
    }

    /// Returns the problem document as an error. For an answer without one (a proxy's page, a redirect), it is made from the
    /// status and the headers.
    fn problem(&self) -> Error {
        let mut problem = serde_json::from_slice::<Problem>(&self.body).unwrap_or_default();
        problem.status = self.status.as_u16();
        if problem.title.is_empty() {
            problem.title = self.status.canonical_reason().unwrap_or("Unknown answer").to_owned();
            let elsewhere = self.headers.get(LOCATION).and_then(|location| location.to_str().ok());
            problem.detail = elsewhere.map(|location| format!("the answer redirects to {location}"));
        }
        problem.retry_after = problem.retry_after.or_else(|| retry_after(&self.headers));
        Error::Server(Box::new(problem))
    }
}

/// In seconds. The form with a date (RFC 9110, section 10.2.3) is ignored.
pub fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

fn nonsense(why: &str) -> Error {
    Error::UnexpectedAnswer(why.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers, body: Bytes::copy_from_slice(body.as_bytes()), asked_at: Instant::now() }
    }

    #[test]
    fn a_url_ends_by_the_servers_clock_with_a_margin() {
        let end = |text: &str| Some(text.parse::<DateTime<Utc>>().unwrap());
        // The server lives in 2001; this machine does not.
        let answer = answer(200, &[("date", "Tue, 02 Jan 2001 03:00:00 GMT")], "{}");
        let left = |until: Option<Instant>| until.unwrap() - answer.asked_at;
        assert_eq!(left(answer.good_until(end("2001-01-02T03:15:00Z"))), Duration::from_secs(14 * 60));
        assert_eq!(left(answer.good_until(end("2001-01-02T03:00:08Z"))), Duration::from_secs(6));
        assert_eq!(left(answer.good_until(end("2001-01-02T02:00:00Z"))), Duration::ZERO);
        assert_eq!(answer.good_until(None), None);
    }

    #[test]
    fn an_answer_without_a_problem_document_still_says_something() {
        let Error::Server(page) = answer(502, &[("retry-after", "3")], "<html>").problem() else { panic!() };
        assert_eq!((page.status, page.title.as_str(), page.retry_after), (502, "Bad Gateway", Some(3)));
        let Error::Server(moved) = answer(308, &[("location", "https://up.example/")], "").problem() else { panic!() };
        assert_eq!(moved.detail.as_deref(), Some("the answer redirects to https://up.example/"));
    }
}
