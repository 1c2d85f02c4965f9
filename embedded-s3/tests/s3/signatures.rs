//! Which signatures are accepted, and for how long.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::presigning::PresigningConfig;

use crate::kit::*;

fn from(start: SystemTime, secs: u64) -> PresigningConfig {
    PresigningConfig::builder().start_time(start).expires_in(Duration::from_secs(secs)).build().unwrap()
}

#[tokio::test]
async fn without_a_signature_nothing_goes() {
    let store = TestStore::start().await;
    store.put("a", "x").await;
    for (method, path) in
        [("GET", "/assets/a"), ("PUT", "/assets/a"), ("DELETE", "/assets/a"), ("GET", "/"), ("PUT", "/new")]
    {
        let answer = store.http.request(method.parse().unwrap(), store.url(path)).send().await.unwrap();
        assert_eq!(code_of(answer).await, (403, "AccessDenied".into()), "{method} {path}");
    }
    assert_eq!(store.get("a").await, b"x");
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let store = TestStore::start().await;
    let endpoint = store.url("");
    let unknown = client_of(&endpoint, "AKIDOTHER", SECRET).list_buckets().send().await;
    assert_eq!(unknown.map_err(code).unwrap_err(), "InvalidAccessKeyId");
    let wrong = client_of(&endpoint, KEY_ID, "wrong").list_buckets().send().await;
    assert_eq!(wrong.map_err(code).unwrap_err(), "SignatureDoesNotMatch");
}

#[tokio::test]
async fn a_url_has_its_time() {
    let store = TestStore::start().await;
    store.put("a", "x").await;
    let now = SystemTime::now();
    let get = || store.s3.get_object().bucket(BUCKET).key("a");
    let expired = get().presigned(from(now - Duration::from_secs(120), 60)).await.unwrap();
    assert_eq!(code_of(store.send(&expired, "").await).await, (403, "AccessDenied".into()));
    let early = get().presigned(from(now + Duration::from_secs(3600), 60)).await.unwrap();
    assert_eq!(code_of(store.send(&early, "").await).await, (403, "RequestTimeTooSkewed".into()));
    let skewed = get().presigned(from(now + Duration::from_secs(300), 60)).await.unwrap();
    assert_eq!(store.send(&skewed, "").await.status(), 200, "five minutes of skew are fine");
}

#[tokio::test]
async fn a_url_is_good_for_what_it_was_made_for_only() {
    let store = TestStore::start().await;
    store.put("a", "x").await;
    let id = store.create("b").await;
    let url = store.s3.upload_part().bucket(BUCKET).key("b").upload_id(&id).part_number(1).content_length(5);
    let url = url.presigned(minutes(5)).await.unwrap();
    let uri = url.uri();
    let tampered = [
        uri.replace("partNumber=1", "partNumber=2"),
        uri.replace(&id, &id.replace('0', "1")),
        uri.replace("/assets/b", "/assets/c"),
        uri.replace("X-Amz-Expires=300", "X-Amz-Expires=3000"),
        format!("{uri}&x=1"),
        uri.replace("127.0.0.1", "localhost"),
    ];
    for uri in tampered {
        assert_ne!(uri, url.uri());
        let answer = store.http.put(&uri).body("hello").send().await.unwrap();
        assert_eq!(code_of(answer).await, (403, "SignatureDoesNotMatch".into()), "{uri}");
    }
    let answer = store.http.delete(uri).send().await.unwrap();
    assert_eq!(answer.status(), 403, "another method");
    for body in ["hell", "hello!"] {
        let answer = store.http.put(uri).body(body).send().await.unwrap();
        assert_eq!(code_of(answer).await, (403, "SignatureDoesNotMatch".into()), "{} bytes", body.len());
    }
    assert_eq!(store.send(&url, "hello").await.status(), 200);
    assert_eq!(store.send(&url, "world").await.status(), 200, "a URL can be used again");
}

#[tokio::test]
async fn a_put_url_cannot_be_turned_into_a_copy() {
    let store = TestStore::start().await;
    store.put("secret", "of another tenant").await;
    let url = store.s3.put_object().bucket(BUCKET).key("mine").presigned(minutes(5)).await.unwrap();
    let disguised = url.uri().replace("X-Amz-SignedHeaders", "X%2DAmz%2DSignedHeaders");
    for uri in [url.uri(), disguised.as_str()] {
        let copy = store.http.put(uri).header("x-amz-copy-source", "/assets/secret").send().await.unwrap();
        assert_eq!(code_of(copy).await, (403, "AccessDenied".into()));
    }
    let labelled = store.http.put(url.uri()).header("x-amz-meta-owner", "me").body("x").send().await.unwrap();
    assert_eq!(code_of(labelled).await, (403, "AccessDenied".into()));
    let got = store.s3.get_object().bucket(BUCKET).key("mine").send().await;
    assert_eq!(got.map_err(code).unwrap_err(), "NoSuchKey");
}

#[tokio::test]
async fn old_signatures_and_forms_are_refused() {
    let store = TestStore::start().await;
    let url = store.url(&format!("/{BUCKET}/a?AWSAccessKeyId={KEY_ID}&Expires=9999999999&Signature=x"));
    let answer = store.http.get(url).send().await.unwrap();
    assert_eq!(code_of(answer).await, (400, "InvalidRequest".into()));
    let answer = store.http.get(store.url("/assets/a")).header("authorization", format!("AWS {KEY_ID}:x"));
    assert_eq!(code_of(answer.send().await.unwrap()).await, (400, "InvalidRequest".into()));
    let form = store.http.post(store.url("/assets")).header("content-type", "Multipart/Form-Data; boundary=x");
    let answer = form.body("--x--").send().await.unwrap();
    assert_eq!(code_of(answer).await, (501, "NotImplemented".into()));
}

#[tokio::test]
async fn what_s3_can_and_we_cannot_is_said_so() {
    let store = TestStore::start().await;
    let answer = store.s3.get_bucket_policy().bucket(BUCKET).send().await;
    assert_eq!(answer.map_err(code).unwrap_err(), "NotImplemented");
    store.put("a", "x").await;
    let versioned = store.s3.get_object().bucket(BUCKET).key("a").version_id("v1").send().await;
    assert_eq!(versioned.map_err(code).unwrap_err(), "NoSuchVersion");
}
