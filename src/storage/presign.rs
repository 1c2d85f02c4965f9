//! Presigned URLs: AWS Signature Version 4 in the query string.
//!
//! Implemented here and not by the SDK because a session may request up to 10,000 URLs at once. The URLs of one upload's
//! parts differ only in number and size, so the day's key, the beginning of the canonical request and the beginning of the
//! URL are made once. ("Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", Amazon S3 API.)

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::key::Location;
use super::profile::Endpoint;

/// RFC 3986's unreserved characters stay as they are in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// In a path the slash stays too.
pub(super) const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Seven days, the maximum of `X-Amz-Expires`.
const EXPIRES_MAX_SECS: i64 = 604_800;

/// A URL that lets anybody who has it do one thing, until it expires. That makes it a secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Presigned {
    pub url: String,
    /// Must be sent exactly so. Never `host` or `content-length`, which every HTTP client sets by itself.
    pub headers: Vec<(&'static str, String)>,
    pub expires_at: DateTime<Utc>,
}

/// Signs the URLs of one upload's parts, each on request. A part's URL requires no headers, only the bytes.
pub struct PartSigner {
    frame: Frame,
    upload_id: String,
    query: String,
    headers: String,
}

/// Headers with which the store shall answer a GET, in place of the object's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub content_disposition: String,
    pub content_type: String,
}

/// Signs with one credential. Made for one request and then dropped: it does not follow a rotation.
///
/// Signing reads the wall clock: the store compares the time in a signature with its own.
#[derive(Clone)]
pub struct Signer {
    site: Arc<Site>,
    identity: Arc<Identity>,
}

/// The endpoint and the region of the URLs.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) endpoint: Endpoint,
    pub(super) region: String,
}

/// A credential, with the values that can be computed from it in advance.
pub(super) struct Identity {
    credentials: Credentials,
    /// `&X-Amz-Security-Token=…`, or empty for a credential without a token.
    token_parameter: String,
    day_key: Mutex<Option<DayKey>>,
}

/// The result of SigV4's key derivation, valid for one day, one region and one service.
struct DayKey {
    date: NaiveDate,
    region: String,
    key: Arc<hmac::Key>,
}

/// Shows which credential it is, and no secret: the SDK's own `Debug` ensures that.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.credentials.fmt(f)
    }
}

impl Identity {
    pub(super) fn new(credentials: Credentials) -> Self {
        let token_parameter = credentials
            .session_token()
            .map_or_else(String::new, |token| format!("&X-Amz-Security-Token={}", utf8_percent_encode(token, QUERY)));
        Self { credentials, token_parameter, day_key: Mutex::new(None) }
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.credentials.expiry().map(DateTime::from)
    }

    fn day_key(&self, date: NaiveDate, region: &str) -> Arc<hmac::Key> {
        let mut cached = self.day_key.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some(day) if day.date == date && day.region == region => day.key.clone(),
            _ => {
                let secret = format!("AWS4{}", self.credentials.secret_access_key());
                let date_key = mac(secret.as_bytes(), date.format("%Y%m%d").to_string().as_bytes());
                let region_key = mac(date_key.as_ref(), region.as_bytes());
                let service_key = mac(region_key.as_ref(), b"s3");
                let signing_key = mac(service_key.as_ref(), b"aws4_request");
                let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, signing_key.as_ref()));
                *cached = Some(DayKey { date, region: region.to_owned(), key: key.clone() });
                key
            }
        }
    }
}

fn mac(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

impl Signer {
    pub(super) fn new(site: Arc<Site>, identity: Arc<Identity>) -> Self {
        Self { site, identity }
    }

    /// Signs a PUT of exactly `size` bytes of this type, and of this content if a digest is given: the store refuses any
    /// other. `content_type` must be a valid header value. `ttl` is cut to the credential's remaining time and to seven
    /// days.
    pub fn put_object(
        &self,
        at: &Location,
        size: u64,
        content_type: &str,
        checksum_sha256: Option<[u8; 32]>,
        ttl: Duration,
    ) -> Presigned {
        // Signed with single spaces (SigV4's rule for header values), so it must be sent with single spaces.
        let content_type = content_type.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let mut headers = vec![("content-type", content_type)];
        headers.extend(checksum_sha256.map(|sum| ("x-amz-checksum-sha256", BASE64.encode(sum))));

        let (host, _) = self.site.endpoint.of_bucket(&at.bucket);
        let size = size.to_string();
        let mut signed: Vec<(&str, &str)> = vec![("content-length", &size), ("host", &host)];
        signed.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
        signed.sort_unstable();
        let (url, expires_at) = self.single("PUT", at, &signed, ttl);
        Presigned { url, headers, expires_at }
    }

    /// Signs a GET of the whole object or of a range. `ttl` is cut as for [`Self::put_object`].
    pub fn get_object(&self, at: &Location, ttl: Duration) -> Presigned {
        let (host, _) = self.site.endpoint.of_bucket(&at.bucket);
        let (url, expires_at) = self.single("GET", at, &[("host", &host)], ttl);
        Presigned { url, headers: Vec::new(), expires_at }
    }

    /// Signs the same GET, answered with these headers.
    pub fn get_object_as(&self, at: &Location, answered: &Answered, ttl: Duration) -> Presigned {
        let mut frame = Frame::new(self, "GET", at, "host", ttl, Utc::now());
        let query = format!(
            "&response-content-disposition={}&response-content-type={}",
            utf8_percent_encode(&answered.content_disposition, QUERY),
            utf8_percent_encode(&answered.content_type, QUERY),
        );
        let lines = format!("host:{}\n", frame.host);
        Presigned { url: frame.sign(&query, &lines), headers: Vec::new(), expires_at: frame.expires_at }
    }

    /// Returns a signer for PUTs of the parts of this upload. `ttl` is cut as for [`Self::put_object`].
    pub fn parts(&self, at: &Location, upload_id: &str, ttl: Duration) -> PartSigner {
        PartSigner {
            frame: Frame::new(self, "PUT", at, "content-length;host", ttl, Utc::now()),
            upload_id: utf8_percent_encode(upload_id, QUERY).to_string(),
            query: String::new(),
            headers: String::new(),
        }
    }

    fn single(&self, method: &str, at: &Location, headers: &[(&str, &str)], ttl: Duration) -> (String, DateTime<Utc>) {
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut frame = Frame::new(self, method, at, &names, ttl, Utc::now());
        let mut lines = String::new();
        for (name, value) in headers {
            text(&mut lines, format_args!("{name}:{value}\n"));
        }
        (frame.sign("", &lines), frame.expires_at)
    }
}

impl PartSigner {
    /// Returns when all of the URLs expire.
    pub fn expires_at(&self) -> DateTime<Utc> {
        self.frame.expires_at
    }

    /// Returns the URL that takes exactly `size` bytes as this part.
    pub fn url(&mut self, number: u32, size: u64) -> String {
        self.query.clear();
        self.headers.clear();
        text(&mut self.query, format_args!("&partNumber={number}&uploadId={}", self.upload_id));
        text(&mut self.headers, format_args!("content-length:{size}\nhost:{}\n", self.frame.host));
        self.frame.sign(&self.query, &self.headers)
    }
}

/// What all URLs of one batch have in common.
struct Frame {
    host: String,
    /// The URL up to `X-Amz-SignedHeaders`, the last parameter that is the same for all. Parameters with names in lower case
    /// follow it in the sorted query.
    url: String,
    /// The canonical request, hashed as far as `url` goes.
    canonical: digest::Context,
    /// The names of the signed headers and the payload's hash, which end every canonical request.
    end: String,
    /// The string to sign. Its last 64 bytes are the canonical request's hash.
    to_sign: String,
    key: Arc<hmac::Key>,
    expires_at: DateTime<Utc>,
}

impl Frame {
    fn new(signer: &Signer, method: &str, at: &Location, names: &str, ttl: Duration, now: DateTime<Utc>) -> Self {
        let (site, identity) = (&signer.site, &signer.identity);
        let lives_secs = lifetime_secs(now, ttl, identity.expires_at());
        let date = now.date_naive();
        let stamp = now.format("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{}/{}/s3/aws4_request", date.format("%Y%m%d"), site.region);

        let (host, mut path) = site.endpoint.of_bucket(&at.bucket);
        path.push('/');
        path.extend(utf8_percent_encode(&at.key, PATH));
        let credential = format!("{}/{scope}", identity.credentials.access_key_id());
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={stamp}&X-Amz-Expires={lives_secs}{}&\
             X-Amz-SignedHeaders={}",
            utf8_percent_encode(&credential, QUERY),
            identity.token_parameter,
            utf8_percent_encode(names, QUERY),
        );
        let mut canonical = digest::Context::new(&digest::SHA256);
        canonical.update(format!("{method}\n{path}\n{query}").as_bytes());
        Self {
            url: format!("{}://{host}{path}?{query}", site.endpoint.scheme()),
            host,
            canonical,
            end: format!("\n{names}\nUNSIGNED-PAYLOAD"),
            to_sign: format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{:64}", ""),
            key: identity.day_key(date, &site.region),
            expires_at: now - TimeDelta::nanoseconds(now.timestamp_subsec_nanos().into())
                + TimeDelta::seconds(lives_secs),
        }
    }

    /// Signs one URL. `query`: the parameters after the shared ones, sorted and with a `&` in front of each. `headers`: the
    /// signed headers, sorted, a line each.
    fn sign(&mut self, query: &str, headers: &str) -> String {
        let mut canonical = self.canonical.clone();
        canonical.update(query.as_bytes());
        canonical.update(b"\n");
        canonical.update(headers.as_bytes());
        canonical.update(self.end.as_bytes());
        let hash = self.to_sign.len() - 64;
        self.to_sign.truncate(hash);
        push_hex(&mut self.to_sign, canonical.finish().as_ref());

        let signature = hmac::sign(&self.key, self.to_sign.as_bytes());
        const LAST: &str = "&X-Amz-Signature=";
        let mut url = String::with_capacity(self.url.len() + query.len() + LAST.len() + 64);
        url.push_str(&self.url);
        url.push_str(query);
        url.push_str(LAST);
        push_hex(&mut url, signature.as_ref());
        url
    }
}

/// Returns the whole seconds from the signing time (itself cut to a second) to the expiry: at most `ttl`, the credential's
/// remaining time and seven days; at least one second, the minimum of `X-Amz-Expires`.
fn lifetime_secs(now: DateTime<Utc>, ttl: Duration, credential_end: Option<DateTime<Utc>>) -> i64 {
    let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let left = credential_end.map_or(i64::MAX, |end| end.timestamp() - now.timestamp());
    ttl.min(left).clamp(1, EXPIRES_MAX_SECS)
}

fn push_hex(to: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        to.push(DIGITS[usize::from(byte >> 4)].into());
        to.push(DIGITS[usize::from(byte & 15)].into());
    }
}

fn text(to: &mut String, what: fmt::Arguments<'_>) {
    to.write_fmt(what).expect("a String takes all that is written to it");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_url_ends_with_the_first_of_ttl_credential_and_seven_days() {
        let now = at("2026-11-21T10:00:00.900Z");
        let secs = Duration::from_secs;
        assert_eq!(lifetime_secs(now, secs(900), None), 900);
        assert_eq!(lifetime_secs(now, Duration::from_millis(1999), None), 1);
        assert_eq!(lifetime_secs(now, secs(0), None), 1);
        assert_eq!(lifetime_secs(now, secs(u64::MAX), None), 604_800);
        assert_eq!(lifetime_secs(now, secs(900), Some(at("2026-11-21T10:05:00.999Z"))), 300);
        assert_eq!(lifetime_secs(now, secs(60), Some(at("2026-11-21T10:05:00Z"))), 60);
        assert_eq!(lifetime_secs(now, secs(60), Some(at("2026-11-21T09:00:00Z"))), 1, "spent: a moment, not a panic");
    }

    #[test]
    fn escapes_are_those_of_rfc_3986_and_in_upper_case() {
        let key = "a b+c%d~e-_.é/(x)*&=?#:";
        assert_eq!(utf8_percent_encode(key, PATH).to_string(), "a%20b%2Bc%25d~e-_.%C3%A9/%28x%29%2A%26%3D%3F%23%3A");
        assert_eq!(utf8_percent_encode("a/b", QUERY).to_string(), "a%2Fb");
    }

    /// The example of "Authenticating Requests: Using Query Parameters" in the Amazon S3 API reference.
    #[test]
    fn the_signature_is_that_of_the_api_reference() {
        let credentials =
            Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, None, "test");
        let endpoint = Endpoint::parse("", "https://s3.amazonaws.com", false).unwrap();
        let site = Arc::new(Site { endpoint, region: "us-east-1".to_owned() });
        let signer = Signer::new(site, Arc::new(Identity::new(credentials)));
        let object = Location { bucket: "examplebucket".to_owned(), key: "test.txt".to_owned() };
        let ttl = Duration::from_secs(86400);
        let mut frame = Frame::new(&signer, "GET", &object, "host", ttl, at("2013-05-24T00:00:00Z"));
        assert_eq!(
            frame.sign("", "host:examplebucket.s3.amazonaws.com\n"),
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=\
             AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&\
             X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
             aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
        assert_eq!(frame.expires_at, at("2013-05-25T00:00:00Z"));
    }

    #[test]
    fn a_day_key_is_made_once_a_day_and_region() {
        let identity = Identity::new(Credentials::new("id", "secret", None, None, "test"));
        let (one, two) = (at("2026-11-21T00:00:00Z").date_naive(), at("2026-11-22T00:00:00Z").date_naive());
        let first = identity.day_key(one, "garage");
        assert!(Arc::ptr_eq(&first, &identity.day_key(one, "garage")));
        assert!(!Arc::ptr_eq(&first, &identity.day_key(two, "garage")));
        assert!(!Arc::ptr_eq(&identity.day_key(two, "garage"), &identity.day_key(two, "auto")));
    }

    #[test]
    fn an_identity_in_a_log_tells_no_secret() {
        let identity = Identity::new(Credentials::new("ID", "SECRET", Some("TOKEN".to_owned()), None, "test"));
        let shown = format!("{identity:?}");
        assert!(shown.contains("ID") && !shown.contains("SECRET") && !shown.contains("TOKEN"), "{shown}");
    }
}
