//! Presigned URLs, compared with those of two other signers: rusty-s3 and the SDK's own.
//!
//! Both are given the signing time and the lifetime that stand in our URL, so that all of it has to agree.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::presigning::PresigningConfig;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{NaiveDateTime, TimeDelta};
use quaymaster::settings::{self, Provider, Secret};
use quaymaster::storage::{Answered, Location, Storage};
use rusty_s3::actions::{GetObject, PutObject, UploadPart};
use rusty_s3::{Bucket, S3Action, UrlStyle};
use url::Url;

use crate::kit;

const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const TTL: Duration = Duration::from_secs(900);
const UPLOAD_ID: &str = "VXBsb2FkIElE+IGZvciBl/bHZpbmcncyBteS1t~b3ZpZS5t.MnRz_Xw==";

const ENDPOINTS: [&str; 6] = [
    "https://s3.eu-west-1.amazonaws.com",
    "http://store.example.com:9000",
    "https://example.com:443/",
    "https://example.com:8443/s3/gate/",
    "http://127.0.0.1:3900",
    "http://[::1]:3900/s3/",
];
const KEYS: [&str; 6] = [
    "temp/uploads/01997b7e-0000-7000-8000-000000000000/original",
    "a b/c+d/e%20f/100%.txt",
    "größe/файл/📦.mov",
    "-_.~!$&'()*,;=:@/x",
    "q?x=1#frag&y[0]={z}|\\^`\"<>",
    "a//b/ /c",
];

/// One form of URL: where it leads and with what it is signed.
struct Form {
    settings: settings::Storage,
    at: Location,
    /// The same for rusty-s3.
    bucket: Bucket,
    credentials: rusty_s3::Credentials,
}

fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for endpoint in ENDPOINTS {
        for path_style in [true, false] {
            for token in [None, Some("FwoGZXIvYXdzEBYa/Dk+Lz==")] {
                for key in KEYS {
                    let settings = settings::Storage {
                        bucket: Some("examplebucket".to_owned()),
                        region: Some("eu-west-1".to_owned()),
                        path_style: Some(path_style),
                        session_token: token.map(Secret::new),
                        ..kit::settings(Provider::Ceph, endpoint, KEY_ID, SECRET)
                    };
                    // An address has no subdomains, whatever the settings say.
                    let is_address = endpoint.contains("127.0.0.1") || endpoint.contains("[::1]");
                    let style = if path_style || is_address { UrlStyle::Path } else { UrlStyle::VirtualHost };
                    let at = Location { bucket: "examplebucket".to_owned(), key: key.to_owned() };
                    let bucket = Bucket::new(endpoint.parse().unwrap(), style, "examplebucket", "eu-west-1").unwrap();
                    let credentials = match token {
                        Some(token) => rusty_s3::Credentials::new_with_token(KEY_ID, SECRET, token),
                        None => rusty_s3::Credentials::new(KEY_ID, SECRET),
                    };
                    forms.push(Form { settings, at, bucket, credentials });
                }
            }
        }
    }
    forms
}

/// What the other signers have to be told of a URL.
struct Signed {
    time: chrono::DateTime<chrono::Utc>,
    lives: Duration,
}

fn signed(url: &str) -> Signed {
    let value = |name: &str| {
        let url = Url::parse(url).unwrap();
        url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned()
    };
    Signed {
        time: NaiveDateTime::parse_from_str(&value("X-Amz-Date"), "%Y%m%dT%H%M%SZ").unwrap().and_utc(),
        lives: Duration::from_secs(value("X-Amz-Expires").parse().unwrap()),
    }
}

impl Form {
    fn describe(&self) -> String {
        format!("{} {} token: {}", self.bucket.base_url(), self.at.key, self.settings.session_token.is_some())
    }

    fn rusty<'a, A: S3Action<'a>>(
        &'a self,
        url: &str,
        make: impl FnOnce(&'a Bucket, &'a rusty_s3::Credentials) -> A,
    ) -> String {
        let signed = signed(url);
        let time = jiff::Timestamp::from_second(signed.time.timestamp()).unwrap();
        make(&self.bucket, &self.credentials).sign_with_time(signed.lives, &time).into()
    }

    fn sdk(&self, url: &str) -> (aws_sdk_s3::Client, PresigningConfig) {
        let signed = signed(url);
        let config = PresigningConfig::builder().start_time(SystemTime::from(signed.time)).expires_in(signed.lives);
        (kit::client(&self.settings), config.build().unwrap())
    }
}

/// The SDK adds a parameter by which AWS tells its SDKs' calls apart; we do not.
#[derive(Debug)]
struct WithoutXId;

impl Intercept for WithoutXId {
    fn name(&self) -> &'static str {
        "WithoutXId"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let uri = context.request().uri();
        let (front, query) = uri.split_once('?').unwrap();
        let kept: Vec<_> = query.split('&').filter(|parameter| !parameter.starts_with("x-id=")).collect();
        let uri = if kept.is_empty() { front.to_owned() } else { format!("{front}?{}", kept.join("&")) };
        context.request_mut().set_uri(uri)?;
        Ok(())
    }
}

/// What of a URL has a meaning: not the order of its parameters, and not a port that its scheme has anyway, which the
/// SDK spells out.
fn sorted(url: &str) -> (String, Vec<String>) {
    let (front, query) = url.split_once('?').unwrap();
    let mut query: Vec<_> = query.split('&').map(str::to_owned).collect();
    query.sort();
    (front.replace(":443/", "/"), query)
}

#[tokio::test]
async fn put_urls_are_those_of_other_signers() {
    let digest = [0xab; 32];
    for form in forms() {
        let signer = Storage::connect(&form.settings).await.unwrap().signer().await.unwrap();
        for checksum in [None, Some(digest)] {
            let ours = signer.put_object(&form.at, 12_345, "text/plain; charset=utf-8", checksum, TTL).url;
            let base64 = checksum.map(|sum| BASE64.encode(sum));
            let rusty = form.rusty(&ours, |bucket, credentials| {
                let mut action = PutObject::new(bucket, Some(credentials), &form.at.key);
                action.headers_mut().insert("content-length", "12345");
                action.headers_mut().insert("content-type", "text/plain; charset=utf-8");
                if let Some(sum) = &base64 {
                    action.headers_mut().insert("x-amz-checksum-sha256", sum.clone());
                }
                action
            });
            assert_eq!(ours, rusty, "{}", form.describe());

            let (sdk, config) = form.sdk(&ours);
            let request = sdk.put_object().bucket(&form.at.bucket).key(&form.at.key).content_length(12_345);
            let request = request.content_type("text/plain; charset=utf-8").set_checksum_sha256(base64);
            let theirs = request.customize().interceptor(WithoutXId).presigned(config).await.unwrap();
            assert_eq!(sorted(&ours), sorted(theirs.uri()), "{}", form.describe());
        }
    }
}

#[tokio::test]
async fn get_urls_are_those_of_other_signers() {
    for form in forms() {
        let signer = Storage::connect(&form.settings).await.unwrap().signer().await.unwrap();
        let ours = signer.get_object(&form.at, TTL).url;
        let rusty = form.rusty(&ours, |bucket, key| GetObject::new(bucket, Some(key), &form.at.key));
        assert_eq!(ours, rusty, "{}", form.describe());

        let (sdk, config) = form.sdk(&ours);
        let request = sdk.get_object().bucket(&form.at.bucket).key(&form.at.key);
        let theirs = request.customize().interceptor(WithoutXId).presigned(config).await.unwrap();
        assert_eq!(sorted(&ours), sorted(theirs.uri()), "{}", form.describe());
    }
}

#[tokio::test]
async fn get_urls_with_headers_of_the_answer_are_those_of_other_signers() {
    let answered = Answered {
        content_disposition: "attachment; filename=\"a b_.mov\"; filename*=UTF-8''a%20b%F0%9F%93%A6.mov".to_owned(),
        content_type: "video/mp4; codecs=\"avc1, mp4a\"".to_owned(),
    };
    for form in forms() {
        let signer = Storage::connect(&form.settings).await.unwrap().signer().await.unwrap();
        let ours = signer.get_object_as(&form.at, &answered, TTL);
        assert_eq!(ours.expires_at, signed(&ours.url).time + TimeDelta::from_std(TTL).unwrap());
        let rusty = form.rusty(&ours.url, |bucket, key| {
            let mut action = GetObject::new(bucket, Some(key), &form.at.key);
            action.query_mut().insert("response-content-disposition", answered.content_disposition.clone());
            action.query_mut().insert("response-content-type", answered.content_type.clone());
            action
        });
        assert_eq!(ours.url, rusty, "{}", form.describe());

        let (sdk, config) = form.sdk(&ours.url);
        let request = sdk.get_object().bucket(&form.at.bucket).key(&form.at.key);
        let request = request.response_content_disposition(&answered.content_disposition);
        let request = request.response_content_type(&answered.content_type);
        let theirs = request.customize().interceptor(WithoutXId).presigned(config).await.unwrap();
        assert_eq!(sorted(&ours.url), sorted(theirs.uri()), "{}", form.describe());
    }
}

#[tokio::test]
async fn part_urls_are_those_of_other_signers() {
    let parts = [(1_u16, 8_388_608), (9, 8_388_608), (10, 8_388_608), (10_000, 1)];
    for form in forms() {
        let signer = Storage::connect(&form.settings).await.unwrap().signer().await.unwrap();
        let mut signer = signer.parts(&form.at, UPLOAD_ID, TTL);
        for (number, size) in parts {
            let ours = signer.url(number.into(), size);
            assert_eq!(signer.expires_at(), signed(&ours).time + TimeDelta::from_std(TTL).unwrap());
            let rusty = form.rusty(&ours, |bucket, credentials| {
                let mut action = UploadPart::new(bucket, Some(credentials), &form.at.key, number, UPLOAD_ID);
                action.headers_mut().insert("content-length", size.to_string());
                action
            });
            assert_eq!(ours, rusty, "{}", form.describe());

            let (sdk, config) = form.sdk(&ours);
            let request = sdk.upload_part().bucket(&form.at.bucket).key(&form.at.key).upload_id(UPLOAD_ID);
            let request = request.part_number(number.into()).content_length(size.try_into().unwrap());
            let theirs = request.customize().interceptor(WithoutXId).presigned(config).await.unwrap();
            assert_eq!(sorted(&ours), sorted(theirs.uri()), "{}", form.describe());
        }
    }
}

#[tokio::test]
async fn a_bucket_that_is_no_host_name_stays_in_the_path() {
    for (bucket, endpoint) in
        [("dots.in.it", "https://s3.eu-west-1.amazonaws.com"), ("Upper_Case", "https://s3.eu-west-1.amazonaws.com")]
    {
        let settings = settings::Storage {
            region: Some("eu-west-1".to_owned()),
            path_style: Some(false),
            ..kit::settings(Provider::Aws, endpoint, KEY_ID, SECRET)
        };
        let signer = Storage::connect(&settings).await.unwrap().signer().await.unwrap();
        let at = Location { bucket: bucket.to_owned(), key: "k".to_owned() };
        let url = signer.get_object(&at, TTL).url;
        assert!(url.starts_with(&format!("{endpoint}/{bucket}/k?")), "{url}");
    }
}

#[tokio::test]
async fn urls_name_the_public_endpoint() {
    let settings = settings::Storage {
        public_endpoint: Some("https://files.example.com".to_owned()),
        ..kit::settings(Provider::Minio, "http://minio.internal:9000", KEY_ID, SECRET)
    };
    let signer = Storage::connect(&settings).await.unwrap().signer().await.unwrap();
    let at = Location { bucket: "uploads".to_owned(), key: "k".to_owned() };
    assert!(signer.get_object(&at, TTL).url.starts_with("https://files.example.com/uploads/k?"));
}
