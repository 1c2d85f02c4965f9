//! Access: a request must be signed with the one key, by a header or in a presigned URL.

use std::borrow::Cow;

use async_trait::async_trait;
use http::{HeaderMap, Request, Uri};
use percent_encoding::percent_decode_str;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::{S3Error, S3Result, s3_error};

/// The only access key of the store.
pub struct Key {
    pub id: String,
    pub secret: SecretKey,
}

#[async_trait]
impl S3Auth for Key {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.id {
            Ok(self.secret.clone())
        } else {
            Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
        }
    }
}

/// Applies [`check`] to each request, after `s3s` has verified its signature.
pub struct SignedOnly;

#[async_trait]
impl S3Access for SignedOnly {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        check(cx.credentials(), cx.uri(), cx.headers())
    }
}

/// # Errors
/// AccessDenied without a signature, or if a presigned URL does not sign an `x-amz-` header of the request.
pub fn check(credentials: Option<&Credentials>, uri: &Uri, headers: &HeaderMap) -> S3Result<()> {
    if credentials.is_none() {
        return Err(s3_error!(AccessDenied, "Access Denied"));
    }
    match unsigned_header(uri, headers) {
        Some(name) => Err(headers_not_signed(&name)),
        None => Ok(()),
    }
}

/// Removes the signature from a request, for a service that verifies none.
pub fn without_signature<B>(request: &mut Request<B>) -> Result<(), http::Error> {
    request.headers_mut().remove(http::header::AUTHORIZATION);
    let query = request.uri().query().unwrap_or_default();
    // The sender may have percent-encoded the names: compare them decoded, and keep the rest as it was sent.
    let kept = query.split('&').filter(|pair| {
        let name = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy();
        !name.to_ascii_lowercase().starts_with("x-amz-")
    });
    let kept = kept.collect::<Vec<_>>().join("&");
    let path = request.uri().path();
    let whole = if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") };
    *request.uri_mut() = Uri::builder().path_and_query(whole).build()?;
    Ok(())
}

fn headers_not_signed(name: &str) -> S3Error {
    s3_error!(AccessDenied, "There were headers present in the request which were not signed: {name}")
}

/// Returns an `x-amz-` header that a presigned URL does not sign, if there is one.
///
/// `s3s` verifies the signed headers and acts on all of them. Without this check the holder of a URL for one PUT
/// could add `x-amz-copy-source` to it, and read any object. S3 refuses such headers too.
/// Two headers are exempt, because they are harmless: one adds a check of the body, the other asks for a checksum in the
/// answer (and the AWS SDK for Rust does not sign it).
fn unsigned_header(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let (_, signed) = parameters(uri).find(|(name, _)| name == "X-Amz-SignedHeaders")?;
    headers
        .keys()
        .map(|name| name.as_str())
        .find(|name| {
            name.starts_with("x-amz-")
                && !["x-amz-content-sha256", "x-amz-checksum-mode"].contains(name)
                && !signed.split(';').any(|signed| signed == *name)
        })
        .map(str::to_owned)
}

/// Whether a request is signed by Signature Version 2, which `s3s` would accept. It uses SHA-1 and does not sign
/// most headers; S3 refuses it in every region opened since 2014.
pub fn is_version_2(uri: &Uri, headers: &HeaderMap) -> bool {
    let by_query = parameters(uri).any(|(name, _)| name == "Signature" || name == "AWSAccessKeyId");
    let by_header = headers.get(http::header::AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS "));
    by_query || by_header
}

/// Returns the parameters of the query, decoded: the signature treats an encoded name like a plain one.
fn parameters(uri: &Uri) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let decode = |text| percent_decode_str(text).decode_utf8_lossy();
    uri.query().unwrap_or_default().split('&').map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_the_url_does_not_sign_is_found() {
        let uri = Uri::from_static("/b/k?X-Amz-SignedHeaders=content-length%3Bhost%3Bx-amz-meta-a&X-Amz-Signature=0");
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-meta-a", "1".parse().expect("a value"));
        headers.insert("x-amz-content-sha256", "1".parse().expect("a value"));
        headers.insert("content-type", "1".parse().expect("a value"));
        assert_eq!(unsigned_header(&uri, &headers), None);
        headers.insert("x-amz-copy-source", "/b/other".parse().expect("a value"));
        assert_eq!(unsigned_header(&uri, &headers), Some("x-amz-copy-source".into()));
        let disguised = Uri::from_static("/b/k?X%2DAmz-SignedHeaders=host%3Bx-amz-meta-a&X-Amz-Signature=0");
        assert_eq!(unsigned_header(&disguised, &headers), Some("x-amz-copy-source".into()));
    }

    #[test]
    fn a_request_without_its_signature_asks_for_the_same() {
        let uri = "/b/a%20b?X-Amz-Date=1&partNumber=2&X%2DAmz-Signature=0&response-content-type=a%2Fb";
        let mut request = Request::get(uri).header("authorization", "AWS4-HMAC-SHA256 x").body(()).expect("a request");
        without_signature(&mut request).expect("it was a URI before");
        assert_eq!(request.uri(), "/b/a%20b?partNumber=2&response-content-type=a%2Fb");
        assert!(request.headers().is_empty());
        let mut request = Request::get("/b/k?X-Amz-Date=1").body(()).expect("a request");
        without_signature(&mut request).expect("it was a URI before");
        assert_eq!(request.uri(), "/b/k");
    }

    #[test]
    fn version_2_is_known_by_query_and_by_header() {
        let none = HeaderMap::new();
        assert!(is_version_2(&Uri::from_static("/b/k?Expires=1&Signature=x"), &none));
        assert!(is_version_2(&Uri::from_static("/b/k?%53ignature=x"), &none));
        assert!(!is_version_2(&Uri::from_static("/b/k?X-Amz-Signature=x"), &none));
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "AWS key:signature".parse().expect("a value"));
        assert!(is_version_2(&Uri::from_static("/"), &headers));
    }
}
