//! Each call, on each store.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use quaymaster::settings::{self, Secret};
use quaymaster::storage::{Kind, Location, Part, Storage};

use crate::kit::{Store, each_store};

const MIB: usize = 1 << 20;
const TTL: Duration = Duration::from_secs(900);

/// Sends parts of these sizes through presigned URLs.
async fn send_parts(store: &Store, at: &Location, upload_id: &str, sizes: &[usize]) {
    let parts = sizes.iter().zip(1..).map(|(size, number)| (number, *size as u64));
    let urls = store.storage.signer().await.unwrap().part_urls(at, upload_id, parts, TTL).urls;
    for (url, size) in urls.iter().zip(sizes) {
        store.put_part(url, vec![7; *size]).await;
    }
}

#[tokio::test]
async fn a_multipart_upload_from_open_to_object() {
    each_store(async |store| {
        let (storage, at) = (&store.storage, store.at("temp/uploads/one/original"));
        let id = storage.open_multipart(&at, "video/quicktime").await.unwrap();
        assert_eq!(storage.list_uploads(&at).await.unwrap(), [id.as_str()]);
        assert_eq!(storage.list_parts(&at, &id).await.unwrap(), []);
        send_parts(store, &at, &id, &[5 * MIB, 5 * MIB, 3]).await;

        let parts = storage.list_parts(&at, &id).await.unwrap();
        let listed: Vec<_> = parts.iter().map(|part| (part.number, part.size)).collect();
        assert_eq!(listed, [(1, 5 << 20), (2, 5 << 20), (3, 3)]);
        assert!(parts.iter().all(|part| part.etag.len() == 32), "{parts:?}");
        storage.complete_multipart(&at, &id, &parts).await.unwrap();

        let object = storage.head(&at).await.unwrap();
        assert_eq!(object.size, (10 << 20) + 3);
        assert!(object.etag.ends_with("-3") || store.name == "garage", "{}", object.etag);
        assert!((chrono::Utc::now() - object.last_modified).abs() < chrono::TimeDelta::minutes(1));
        let stored = store.s3.head_object().bucket(&at.bucket).key(&at.key).send().await.unwrap();
        assert_eq!(stored.content_type(), Some("video/quicktime"));
        assert_eq!(storage.list_uploads(&at).await.unwrap(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_or_no_matter() {
    each_store(async |store| {
        let (storage, at) = (&store.storage, store.at("temp/uploads/none/original"));
        let id = storage.open_multipart(&at, "text/plain").await.unwrap();
        storage.abort_multipart(&at, &id).await.unwrap();
        storage.abort_multipart(&at, &id).await.unwrap();

        let gone = storage.list_parts(&at, &id).await.unwrap_err();
        assert_eq!((gone.kind, gone.code.as_str()), (Kind::NotFound, "NoSuchUpload"));
        let part = Part { number: 1, etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(), size: 0 };
        assert_eq!(storage.complete_multipart(&at, &id, &[part]).await.unwrap_err().kind, Kind::NotFound);
        assert_eq!(storage.head(&at).await.unwrap_err().kind, Kind::NotFound);
        storage.delete(&at).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_part_that_the_store_does_not_hold_is_invalid_and_the_upload_survives() {
    each_store(async |store| {
        let (storage, at) = (&store.storage, store.at("temp/uploads/wrong/original"));
        let id = storage.open_multipart(&at, "text/plain").await.unwrap();
        send_parts(store, &at, &id, &[10]).await;
        let mut parts = storage.list_parts(&at, &id).await.unwrap();
        parts[0].etag = "d41d8cd98f00b204e9800998ecf8427e".to_owned();
        let refused = storage.complete_multipart(&at, &id, &parts).await.unwrap_err();
        assert_eq!((refused.kind, refused.code.as_str()), (Kind::Invalid, "InvalidPart"));
        assert_eq!(storage.list_parts(&at, &id).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn uploads_are_listed_for_one_key_and_not_for_its_longer_neighbours() {
    each_store(async |store| {
        let (storage, at) = (&store.storage, store.at("temp/uploads/a/original"));
        let neighbour = store.at("temp/uploads/a/original-2");
        let first = storage.open_multipart(&at, "text/plain").await.unwrap();
        storage.open_multipart(&neighbour, "text/plain").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let second = storage.open_multipart(&at, "text/plain").await.unwrap();
        assert_eq!(storage.list_uploads(&at).await.unwrap(), [first, second]);
    })
    .await;
}

/// A page has a thousand at most.
#[tokio::test]
async fn uploads_are_listed_over_all_pages() {
    each_store(async |store| {
        let (storage, at) = (&store.storage, store.at("temp/uploads/many/original"));
        let opened = stream::iter(0..1_100).map(|_| storage.open_multipart(&at, "text/plain")).buffer_unordered(16);
        let mut opened: Vec<_> = opened.try_collect().await.unwrap();
        let mut listed = storage.list_uploads(&at).await.unwrap();
        opened.sort_unstable();
        listed.sort_unstable();
        assert!(opened == listed, "{}: {} opened, {} listed", store.name, opened.len(), listed.len());
    })
    .await;
}

/// A page has a thousand at most.
#[tokio::test]
async fn parts_are_listed_over_all_pages_in_order() {
    each_store(async |store| {
        let (storage, at) = (&store.storage, store.at("temp/uploads/parts/original"));
        let id = storage.open_multipart(&at, "text/plain").await.unwrap();
        let numbers = (1..=1_050).chain([9_999, 10_000]).rev();
        let urls = storage.signer().await.unwrap().part_urls(&at, &id, numbers.map(|n| (n, 1)), TTL).urls;
        stream::iter(&urls).for_each_concurrent(16, async |url| drop(store.put_part(url, vec![1]).await)).await;
        let listed: Vec<_> = storage.list_parts(&at, &id).await.unwrap().iter().map(|part| part.number).collect();
        assert_eq!(listed, (1..=1_050).chain([9_999, 10_000]).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_probe_says_whether_the_bucket_answers() {
    each_store(async |store| {
        store.storage.ready(store.storage.bucket()).await.unwrap();
        let missing = store.storage.ready("no-such-bucket-anywhere").await.unwrap_err();
        assert!(matches!(missing.kind, Kind::Invalid | Kind::Refused), "{}: {missing}", store.name);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_not_missing() {
    each_store(async |store| {
        let wrong =
            settings::Storage { secret_access_key: Some(Secret::new("0".repeat(64))), ..store.settings.clone() };
        let storage = Storage::connect(&wrong).await.unwrap();
        let at = store.at("temp/uploads/secret/original");
        assert_eq!(storage.head(&at).await.unwrap_err().kind, Kind::Refused);
        assert_eq!(storage.open_multipart(&at, "text/plain").await.unwrap_err().kind, Kind::Refused);
        assert_eq!(storage.delete(&at).await.unwrap_err().kind, Kind::Refused);
    })
    .await;
}
