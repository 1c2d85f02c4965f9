//! Signature Version 4 by hand, for requests that no SDK would send.

use std::time::{SystemTime, UNIX_EPOCH};

use s3s::crypto::{Checksum, Sha256};

use crate::kit::{KEY_ID, SECRET};

/// Builds a signed request. `extra` are additional headers, with names in lower case.
pub fn signed(
    http: &reqwest::Client,
    method: &str,
    url: &str,
    payload_hash: &str,
    extra: &[(&str, &str)],
) -> reqwest::RequestBuilder {
    let url: reqwest::Url = url.parse().unwrap();
    let stamp = stamp();
    let day = &stamp[..8];
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut headers = vec![("host", host.as_str()), ("x-amz-content-sha256", payload_hash), ("x-amz-date", &stamp)];
    headers.extend_from_slice(extra);
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let query = url.query().unwrap_or_default();
    let canonical = format!("{method}\n{}\n{query}\n{lines}\n{names}\n{payload_hash}", url.path());
    let scope = format!("{day}/us-east-1/s3/aws4_request");
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex::encode(Sha256::checksum(canonical.as_bytes())));
    let mut key = hmac(format!("AWS4{SECRET}").as_bytes(), day.as_bytes());
    for step in ["us-east-1", "s3", "aws4_request"] {
        key = hmac(&key, step.as_bytes());
    }
    let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}");
    let mut request = http.request(method.parse().unwrap(), url).header("authorization", authorization);
    for (name, value) in headers {
        if name != "host" {
            request = request.header(name, value);
        }
    }
    request
}

/// RFC 2104.
fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len().min(64)].copy_from_slice(&key[..key.len().min(64)]);
    let inner = Sha256::checksum(&[&block.map(|byte| byte ^ 0x36), data].concat());
    Sha256::checksum(&[&block.map(|byte| byte ^ 0x5c)[..], &inner[..]].concat()).to_vec()
}

/// The current time, as `20261231T235959Z`.
fn stamp() -> String {
    let secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let time = aws_sdk_s3::primitives::DateTime::from_secs(secs);
    let text = time.fmt(aws_sdk_s3::primitives::DateTimeFormat::DateTime).unwrap();
    text.replace(['-', ':'], "")
}
