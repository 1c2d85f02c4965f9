//! CopyObject and UploadPartCopy.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedPart, MetadataDirective};

use crate::kit::*;

fn source(key: &str) -> String {
    let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
    format!("{BUCKET}/{key}")
}

#[tokio::test]
async fn a_copy_shares_bytes_and_outlives_its_source() {
    let store = TestStore::start().await;
    let body = noise(1, MIB);
    let put = store.s3.put_object().bucket(BUCKET).key("a/ä b").content_type("image/png").metadata("k", "v");
    put.body(body.clone().into()).send().await.unwrap();
    let copy = || store.s3.copy_object().bucket(BUCKET).copy_source(source("a/ä b"));
    let copied = copy().key("b").send().await.unwrap();
    assert!(copied.copy_object_result().unwrap().e_tag().is_some());
    assert_eq!(store.blobs(1).await, 1, "no byte is copied");
    let head = store.s3.head_object().bucket(BUCKET).key("b").send().await.unwrap();
    assert_eq!(head.content_type(), Some("image/png"));
    assert_eq!(head.metadata().unwrap()["k"], "v");

    let replaced = copy().key("c").metadata_directive(MetadataDirective::Replace).content_type("text/plain");
    replaced.send().await.unwrap();
    let head = store.s3.head_object().bucket(BUCKET).key("c").send().await.unwrap();
    assert_eq!(head.content_type(), Some("text/plain"));
    assert!(head.metadata().is_none_or(|metadata| metadata.is_empty()));

    store.s3.delete_object().bucket(BUCKET).key("a/ä b").send().await.unwrap();
    store.s3.delete_object().bucket(BUCKET).key("c").send().await.unwrap();
    assert_eq!(store.get("b").await, body);
    store.s3.delete_object().bucket(BUCKET).key("b").send().await.unwrap();
    assert_eq!(store.blobs(0).await, 0);
    assert_eq!(copy().key("d").send().await.map_err(code).unwrap_err(), "NoSuchKey");
}

#[tokio::test]
async fn a_copy_onto_itself_must_change_something() {
    let store = TestStore::start().await;
    store.put("a", "x").await;
    let copy = || store.s3.copy_object().bucket(BUCKET).key("a").copy_source(source("a"));
    assert_eq!(copy().send().await.map_err(code).unwrap_err(), "InvalidRequest");
    copy().metadata_directive(MetadataDirective::Replace).content_type("text/css").send().await.unwrap();
    assert_eq!(store.get("a").await, b"x");
    assert_eq!(store.blobs(1).await, 1);
    let head = store.s3.head_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(head.content_type(), Some("text/css"));
}

#[tokio::test]
async fn a_copy_can_insist_on_its_source() {
    let store = TestStore::start().await;
    let etag = store.put("a", "x").await;
    store.put("b", "before").await;
    let past = DateTime::from(SystemTime::now() - Duration::from_secs(3600));
    let copy = || store.s3.copy_object().bucket(BUCKET).key("b").copy_source(source("a"));
    let refused = [
        copy().copy_source_if_match("\"other\"").send().await,
        copy().copy_source_if_none_match(&etag).send().await,
        copy().copy_source_if_unmodified_since(past).send().await,
    ];
    for refused in refused {
        assert_eq!(refused.map_err(code).unwrap_err(), "PreconditionFailed");
    }
    for on_target in [copy().if_none_match("*"), copy().if_match("\"other\"")] {
        let refused = on_target.send().await.map_err(code);
        assert_eq!(refused.unwrap_err(), "PreconditionFailed", "a condition on the target");
    }
    assert_eq!(store.get("b").await, b"before");
    copy().copy_source_if_match(&etag).copy_source_if_unmodified_since(past).send().await.unwrap();
    assert_eq!(store.get("b").await, b"x");
}

#[tokio::test]
async fn parts_can_be_stretches_of_objects() {
    let store = TestStore::start().await;
    // The source is itself made of parts, and the stretch crosses them.
    let (one, two) = (noise(1, PART), noise(2, PART));
    let id = store.create("source").await;
    let parts = vec![store.part("source", &id, 1, one.clone()).await, store.part("source", &id, 2, two.clone()).await];
    let source_etag = store.complete("source", &id, parts).await.unwrap();
    let whole = [one, two].concat();

    let id = store.create("target").await;
    let copy =
        |number: i32| store.s3.upload_part_copy().bucket(BUCKET).key("target").upload_id(&id).part_number(number);
    let first = copy(1).copy_source(source("source")).copy_source_range(format!("bytes=1-{}", PART + MIB));
    let first = first.copy_source_if_match(&source_etag).send().await.unwrap();
    let first = first.copy_part_result().unwrap().e_tag().unwrap().to_owned();
    assert_eq!(first, store.put("check", &whole[1..=PART + MIB]).await, "the ETag is the MD5 of the stretch");
    let second = store.part("target", &id, 2, "tail").await;
    let refused = [
        (copy(3).copy_source(source("source")).copy_source_range("bytes=0-99999999"), "InvalidRange"),
        (copy(3).copy_source(source("source")).copy_source_range("bytes=5-"), "InvalidArgument"),
        (copy(3).copy_source(source("none")), "NoSuchKey"),
        (copy(3).copy_source(source("source")).copy_source_if_match("\"other\""), "PreconditionFailed"),
        (copy(10_001).copy_source(source("source")), "InvalidArgument"),
        (copy(3).copy_source(source("source")).upload_id("none"), "NoSuchUpload"),
    ];
    for (request, wanted) in refused {
        assert_eq!(request.send().await.map_err(code).unwrap_err(), wanted);
    }
    store.s3.delete_object().bucket(BUCKET).key("source").send().await.unwrap();
    let parts = vec![CompletedPart::builder().part_number(1).e_tag(first).build(), second];
    store.complete("target", &id, parts).await.unwrap();
    assert_eq!(store.get("target").await, [&whole[1..=PART + MIB], b"tail"].concat());
    store.s3.delete_object().bucket(BUCKET).key("target").send().await.unwrap();
    assert_eq!(store.blobs(1).await, 1, "only the check is left");
}

#[tokio::test]
async fn a_part_copied_from_the_object_it_replaces_keeps_its_bytes() {
    let store = TestStore::start().await;
    let body = noise(9, PART);
    store.put("a", body.clone()).await;
    let id = store.create("a").await;
    let copied = store.s3.upload_part_copy().bucket(BUCKET).key("a").upload_id(&id).part_number(1);
    let copied = copied.copy_source(source("a")).send().await.unwrap();
    let first = CompletedPart::builder().part_number(1).e_tag(copied.copy_part_result().unwrap().e_tag().unwrap());
    let second = store.part("a", &id, 2, "appended").await;
    store.complete("a", &id, vec![first.build(), second]).await.unwrap();
    assert_eq!(store.get("a").await, [&body[..], b"appended"].concat());
    assert_eq!(store.blobs(2).await, 2);
    let overwritten = store.s3.put_object().bucket(BUCKET).key("a").body(ByteStream::from_static(b"x"));
    overwritten.send().await.unwrap();
    assert_eq!(store.blobs(1).await, 1);
}
