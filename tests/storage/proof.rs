//! What the store is asked beside its first answer.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use quaymaster::storage::{ErrorKind, Op};

use crate::faults::{Does, Faulty};
use crate::kit::each_store;

#[tokio::test]
async fn a_checksum_comes_back_where_it_was_sent() {
    each_store(async |store| {
        let (at, plain) = (store.at("temp/uploads/summed/original"), store.at("temp/uploads/plain/original"));
        let sum: [u8; 32] = digest::digest(&digest::SHA256, b"hello").as_ref().try_into().unwrap();
        let put = |key: &str| store.s3.put_object().bucket(&at.bucket).key(key).body(b"hello".to_vec().into());
        put(&at.key).checksum_sha256(BASE64.encode(sum)).send().await.unwrap();
        put(&plain.key).send().await.unwrap();
        let found = store.storage.find_with_checksum(&at).await.unwrap().unwrap();
        assert_eq!((found.size, found.sha256), (5, Some(sum)), "{}", store.name);
        assert_eq!(store.storage.head(&at).await.unwrap().sha256, None, "nobody asked for it");
        let found = store.storage.find_with_checksum(&plain).await.unwrap().unwrap();
        assert_eq!((found.size, found.sha256), (5, None), "{}", store.name);
        assert_eq!(store.storage.find_with_checksum(&store.at("temp/none")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn an_object_is_gone_by_two_answers() {
    each_store(async |store| {
        let (at, neighbour) = (store.at("temp/uploads/one/original"), store.at("temp/uploads/one/original-2"));
        for key in [&at.key, &neighbour.key] {
            store.s3.put_object().bucket(&at.bucket).key(key).body(vec![1].into()).send().await.unwrap();
        }
        assert!(!store.storage.is_gone(&at).await.unwrap());
        store.storage.delete(&at).await.unwrap();
        assert!(store.storage.is_gone(&at).await.unwrap(), "{}", store.name);
        assert!(!store.storage.is_gone(&neighbour).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_store_is_tried_for_lists_by_prefix_and_keeps_nothing_of_it() {
    each_store(async |store| {
        let bucket = store.storage.bucket();
        // As a trial that was killed leaves it.
        let probe = store.at("temp/uploads/.probe");
        store.storage.open_multipart(&probe, "text/plain").await.unwrap();
        assert!(store.storage.lists_uploads_by_prefix(bucket).await.unwrap(), "{}", store.name);
        assert!(store.storage.uploads(bucket, "").next().await.unwrap().unwrap().items.is_empty(), "{}", store.name);
    })
    .await;
}

/// A bucket with a version of the object and the marker that hides it, until they are deleted.
async fn versioned(version_goes: bool) -> Faulty {
    Faulty::start(move |number, line| {
        let entries = "<DeleteMarker><Key>temp/a</Key><VersionId>m</VersionId></DeleteMarker>\
                       <Version><Key>temp/a</Key><VersionId>v</VersionId></Version>\
                       <Version><Key>temp/ab</Key><VersionId>w</VersionId></Version>";
        let list = |entries: &str| Does::Say(200, format!("<ListVersionsResult>{entries}</ListVersionsResult>"));
        match line {
            line if line.contains("versionId=") && version_goes => Does::Say(204, String::new()),
            line if line.contains("versionId=") => {
                Does::Say(403, "<Error><Code>AccessDenied</Code><Message>locked</Message></Error>".to_owned())
            }
            line if line.starts_with("DELETE") => {
                Does::SayWith(204, "x-amz-delete-marker: true\r\nx-amz-version-id: m\r\n".to_owned(), String::new())
            }
            _ if number == 1 => list(entries),
            _ => list("<Version><Key>temp/ab</Key><VersionId>w</VersionId></Version>"),
        }
    })
    .await
}

#[tokio::test]
async fn what_is_deleted_is_deleted_with_its_versions() {
    let store = versioned(true).await;
    let at = quaymaster::storage::Location { bucket: "bucket".to_owned(), key: "temp/a".to_owned() };
    store.storage().await.delete(&at).await.unwrap();
    let requests = store.requests();
    let deleted: Vec<_> = requests.iter().filter(|line| line.contains("versionId=")).collect();
    assert_eq!(deleted.len(), 2, "{requests:?}");
    assert!(deleted[0].contains("versionId=v") && deleted[1].contains("versionId=m"), "the bytes first: {requests:?}");

    let locked = versioned(false).await;
    let error = locked.storage().await.delete(&at).await.unwrap_err();
    assert_eq!((error.op, error.kind), (Op::Delete, ErrorKind::Refused));
}
