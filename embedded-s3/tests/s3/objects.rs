//! Single objects: put, get, head, delete, and the conditions on them.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use crate::kit::*;

#[tokio::test]
async fn what_was_put_is_what_is_got() {
    let store = TestStore::start().await;
    for length in [0, 1, 255 * 1024, MIB + 7, 3 * MIB] {
        let body = noise(length as u64, length);
        let etag = store.put("a", body.clone()).await;
        assert_eq!(store.get("a").await, body, "{length} bytes");
        let head = store.s3.head_object().bucket(BUCKET).key("a").send().await.unwrap();
        assert_eq!(head.content_length, Some(length as i64));
        assert_eq!(head.e_tag, Some(etag));
    }
    assert_eq!(store.blobs(1).await, 1);
    store.s3.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    let gone = store.s3.get_object().bucket(BUCKET).key("a").send().await.map_err(code);
    assert_eq!(gone.unwrap_err(), "NoSuchKey");
    assert_eq!(store.blobs(0).await, 0);
    // Deleting a key that does not exist is not an error.
    store.s3.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
}

#[tokio::test]
async fn an_etag_is_the_md5_of_the_bytes() {
    let store = TestStore::start().await;
    assert_eq!(store.put("a", "hello").await, "\"5d41402abc4b2a76b9719d911017c592\"");
    assert_eq!(store.put("a", "").await, "\"d41d8cd98f00b204e9800998ecf8427e\"");
}

#[tokio::test]
async fn headers_and_metadata_come_back() {
    let mut store = TestStore::start().await;
    let expires = DateTime::from_secs(1_900_000_000);
    let put = store.s3.put_object().bucket(BUCKET).key("a").body(ByteStream::from_static(b"x"));
    put.content_type("video/quicktime")
        .content_disposition("attachment; filename=\"reel.mov\"")
        .content_encoding("gzip")
        .content_language("de")
        .cache_control("max-age=60")
        .expires(expires)
        .metadata("asset", "42")
        .metadata("title", "with spaces")
        .send()
        .await
        .unwrap();
    store.restart().await;
    let head = store.s3.head_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(head.content_type(), Some("video/quicktime"));
    assert_eq!(head.content_disposition(), Some("attachment; filename=\"reel.mov\""));
    assert_eq!(head.content_encoding(), Some("gzip"));
    assert_eq!(head.content_language(), Some("de"));
    assert_eq!(head.cache_control(), Some("max-age=60"));
    assert_eq!(head.expires_string(), Some("Sun, 17 Mar 2030 17:46:40 GMT"));
    let metadata = head.metadata().unwrap();
    assert_eq!(metadata["asset"], "42");
    assert_eq!(metadata["title"], "with spaces");
    let got = store.s3.get_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(got.content_type(), Some("video/quicktime"));
    assert_eq!(got.metadata().unwrap()["asset"], "42");

    let long = store.s3.put_object().bucket(BUCKET).key("b").metadata("long", "x".repeat(2048)).send().await;
    assert_eq!(long.map_err(code).unwrap_err(), "MetadataTooLarge");
}

#[tokio::test]
async fn a_url_can_say_how_the_answer_is_labelled() {
    let store = TestStore::start().await;
    store.put("a", "x").await;
    let url = store
        .s3
        .get_object()
        .bucket(BUCKET)
        .key("a")
        .response_content_disposition("attachment; filename*=UTF-8''%C3%A4.mov")
        .response_content_type("text/plain")
        .presigned(minutes(5))
        .await
        .unwrap();
    let answer = store.send(&url, "").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-disposition"], "attachment; filename*=UTF-8''%C3%A4.mov");
    assert_eq!(answer.headers()["content-type"], "text/plain");
}

#[tokio::test]
async fn ranges_are_cut_as_the_rfc_says() {
    let store = TestStore::start().await;
    let body = noise(3, MIB);
    store.put("a", body.clone()).await;
    store.put("empty", "").await;
    let cases = [
        ("bytes=0-0", 0..1),
        ("bytes=10-19", 10..20),
        ("bytes=1048570-", MIB - 6..MIB),
        ("bytes=1048570-99999999", MIB - 6..MIB),
        ("bytes=-5", MIB - 5..MIB),
        ("bytes=-99999999", 0..MIB),
        ("bytes=262143-262144", 262_143..262_145),
    ];
    for (header, range) in cases {
        let url = store.s3.get_object().bucket(BUCKET).key("a").range(header).presigned(minutes(5)).await.unwrap();
        let answer = store.send(&url, "").await;
        assert_eq!(answer.status(), 206, "{header}");
        let wanted = format!("bytes {}-{}/{MIB}", range.start, range.end - 1);
        assert_eq!(answer.headers()["content-range"], wanted.as_str());
        assert_eq!(answer.headers()["content-length"], range.len().to_string().as_str());
        assert_eq!(answer.bytes().await.unwrap(), &body[range.clone()], "{header}");

        let url = store.s3.head_object().bucket(BUCKET).key("a").range(header).presigned(minutes(5)).await.unwrap();
        let answer = store.send(&url, "").await;
        assert_eq!(answer.status(), 206, "HEAD {header}");
        assert_eq!(answer.headers()["content-range"], wanted.as_str());
        assert_eq!(answer.headers()["content-length"], range.len().to_string().as_str());
    }
    for (key, header) in [("a", "bytes=1048576-"), ("a", "bytes=-0"), ("empty", "bytes=0-"), ("empty", "bytes=-1")] {
        let refused = store.s3.get_object().bucket(BUCKET).key(key).range(header).send().await;
        assert_eq!(refused.map_err(code).unwrap_err(), "InvalidRange", "{key} {header}");
    }
}

#[tokio::test]
async fn reads_can_be_conditional() {
    let store = TestStore::start().await;
    let etag = store.put("a", "x").await;
    let past = DateTime::from(SystemTime::now() - Duration::from_secs(3600));
    let future = DateTime::from(SystemTime::now() + Duration::from_secs(3600));
    let get = || store.s3.get_object().bucket(BUCKET).key("a");
    let head = || store.s3.head_object().bucket(BUCKET).key("a");

    assert!(get().if_match(&etag).send().await.is_ok());
    assert!(get().if_none_match("\"other\"").send().await.is_ok());
    assert!(get().if_modified_since(past).send().await.is_ok());
    assert!(get().if_unmodified_since(future).send().await.is_ok());
    // An ETag takes precedence over a date.
    assert!(get().if_match(&etag).if_unmodified_since(past).send().await.is_ok());
    assert_eq!(get().if_match("\"other\"").send().await.map_err(code).unwrap_err(), "PreconditionFailed");
    assert_eq!(get().if_unmodified_since(past).send().await.map_err(code).unwrap_err(), "PreconditionFailed");
    assert_eq!(head().if_match("\"other\"").send().await.map_err(code).unwrap_err(), "412");
    assert_eq!(head().if_none_match(&etag).send().await.map_err(code).unwrap_err(), "304");
    // A weak ETag never matches in If-Match; in If-None-Match it matches like a strong one.
    let weak = format!("W/{etag}");
    assert_eq!(get().if_match(&weak).send().await.map_err(code).unwrap_err(), "PreconditionFailed");
    assert_eq!(head().if_none_match(&weak).send().await.map_err(code).unwrap_err(), "304");
    let put = store.s3.put_object().bucket(BUCKET).key("a").if_match(&weak).send().await;
    assert_eq!(put.map_err(code).unwrap_err(), "PreconditionFailed");

    let url = get().if_none_match(&etag).presigned(minutes(5)).await.unwrap();
    let answer = store.send(&url, "").await;
    assert_eq!(answer.status(), 304);
    assert_eq!(answer.headers()["etag"], etag.as_str());
    assert_eq!(answer.bytes().await.unwrap(), "");
    let url = get().if_modified_since(future).presigned(minutes(5)).await.unwrap();
    assert_eq!(store.send(&url, "").await.status(), 304);
}

#[tokio::test]
async fn writes_can_be_conditional() {
    let store = TestStore::start().await;
    let put = || store.s3.put_object().bucket(BUCKET).key("a").body(ByteStream::from_static(b"x"));
    assert_eq!(put().if_match("\"other\"").send().await.map_err(code).unwrap_err(), "NoSuchKey");
    put().if_none_match("*").send().await.unwrap();
    assert_eq!(put().if_none_match("*").send().await.map_err(code).unwrap_err(), "PreconditionFailed");
    assert_eq!(put().if_match("\"other\"").send().await.map_err(code).unwrap_err(), "PreconditionFailed");
    let etag = store.put("a", "y").await;
    put().if_match(&etag).send().await.unwrap();
    assert_eq!(put().if_none_match("\"some\"").send().await.map_err(code).unwrap_err(), "NotImplemented");

    let delete = || store.s3.delete_object().bucket(BUCKET).key("a");
    assert_eq!(delete().if_match(&etag).send().await.map_err(code).unwrap_err(), "PreconditionFailed");
    assert_eq!(store.get("a").await, b"x");
    assert_eq!(store.blobs(1).await, 1);
}

#[tokio::test]
async fn many_keys_go_at_once() {
    let store = TestStore::start().await;
    for n in 0..5 {
        store.put(&format!("k{n}"), "x").await;
    }
    let names = (0..7).map(|n| ObjectIdentifier::builder().key(format!("k{n}")).build().unwrap()).collect();
    let list = Delete::builder().set_objects(Some(names)).build().unwrap();
    let done = store.s3.delete_objects().bucket(BUCKET).delete(list).send().await.unwrap();
    assert_eq!(done.deleted().len(), 7, "a key that is not there counts as deleted");
    assert!(done.errors().is_empty());
    assert_eq!(store.blobs(0).await, 0);

    let names = (0..1001).map(|n| ObjectIdentifier::builder().key(format!("k{n}")).build().unwrap()).collect();
    let list = Delete::builder().set_objects(Some(names)).build().unwrap();
    let refused = store.s3.delete_objects().bucket(BUCKET).delete(list).send().await;
    assert_eq!(refused.map_err(code).unwrap_err(), "MalformedXML");
}
