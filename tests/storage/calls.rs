//! Each call, on each store.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use quaymaster::settings::{self, Secret};
use quaymaster::storage::{ErrorKind, ListedObject, ListedUpload, Location, Part, Source, Storage};

use crate::kit::{Store, each_store};

const MIB: usize = 1 << 20;
const TTL: Duration = Duration::from_secs(900);

/// Sends parts of these sizes through presigned URLs.
async fn send_parts(store: &Store, at: &Location, upload_id: &str, sizes: &[usize]) {
    let mut signer = store.storage.signer().await.unwrap().parts(at, upload_id, TTL);
    for (size, number) in sizes.iter().zip(1..) {
        store.put_part(&signer.url(number, *size as u64), vec![7; *size]).await;
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
        assert_eq!((gone.kind, gone.code.as_str()), (ErrorKind::NotFound, "NoSuchUpload"));
        let part = Part { number: 1, etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(), size: 0 };
        assert_eq!(storage.complete_multipart(&at, &id, &[part]).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(storage.head(&at).await.unwrap_err().kind, ErrorKind::NotFound);
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
        assert_eq!((refused.kind, refused.code.as_str()), (ErrorKind::Invalid, "InvalidPart"));
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
        let mut signer = storage.signer().await.unwrap().parts(&at, &id, TTL);
        let urls: Vec<_> = numbers.map(|number| signer.url(number, 1)).collect();
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
        assert!(matches!(missing.kind, ErrorKind::Invalid | ErrorKind::Refused), "{}: {missing}", store.name);
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
        assert_eq!(storage.head(&at).await.unwrap_err().kind, ErrorKind::Refused);
        assert_eq!(storage.open_multipart(&at, "text/plain").await.unwrap_err().kind, ErrorKind::Refused);
        assert_eq!(storage.delete(&at).await.unwrap_err().kind, ErrorKind::Refused);
    })
    .await;
}

async fn put(store: &Store, at: &Location, bytes: Vec<u8>) {
    store.s3.put_object().bucket(&at.bucket).key(&at.key).body(bytes.into()).send().await.unwrap();
}

async fn stored(store: &Store, at: &Location) -> (Vec<u8>, String) {
    let object = store.s3.get_object().bucket(&at.bucket).key(&at.key).send().await.unwrap();
    let content_type = object.content_type().unwrap_or_default().to_owned();
    (object.body.collect().await.unwrap().to_vec(), content_type)
}

/// The store as it copies by parts what is larger than 5 MiB.
async fn copying_by_parts(store: &Store) -> Storage {
    let settings = settings::Storage { max_copy_bytes: Some(5 << 20), ..store.settings.clone() };
    Storage::connect(&settings).await.unwrap()
}

#[tokio::test]
async fn a_copy_is_the_object_whole_or_by_parts() {
    each_store(async |store| {
        let by_parts = copying_by_parts(store).await;
        let bytes: Vec<u8> = (0..11 * MIB).map(|n| (n % 251) as u8).collect();
        let from = store.at("temp/uploads/a b+c/📦%20/original");
        put(store, &from, bytes.clone()).await;
        let object = store.storage.head(&from).await.unwrap();
        let source = Source { at: &from, etag: &object.etag, size: object.size };
        for (storage, key) in [(&store.storage, "assets/whole"), (&by_parts, "assets/parts")] {
            let to = store.at(key);
            storage.copy(source, &to, "video/mp4; codecs=\"avc1\"").await.unwrap();
            let (copy, content_type) = stored(store, &to).await;
            assert!(copy == bytes, "{} {key}", store.name);
            assert_eq!(content_type, "video/mp4; codecs=\"avc1\"", "{} {key}", store.name);
            // Again is fine.
            storage.copy(source, &to, "video/mp4").await.unwrap();
        }
        assert!(store.storage.uploads(&from.bucket, "").next().await.unwrap().unwrap().items.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_copy_says_which_object_it_is() {
    each_store(async |store| {
        let (from, to) = (store.at("temp/from"), store.at("assets/to"));
        put(store, &from, vec![7; 1_000]).await;
        let etag = store.storage.head(&from).await.unwrap().etag;
        let copied = store.storage.copy(Source { at: &from, etag: &etag, size: 1_000 }, &to, "text/plain").await;
        assert_eq!(copied.unwrap().as_ref(), Some(&etag), "{}", store.name);
    })
    .await;
}

#[tokio::test]
async fn many_objects_are_deleted_as_one_by_one() {
    each_store(async |store| {
        let all: Vec<_> = (0..5).map(|n| store.at(&format!("temp/{n} & <é>"))).collect();
        for at in &all[..4] {
            put(store, at, vec![7; 10]).await;
        }
        // One is not there.
        let deleted = store.storage.delete_all(&all).await;
        assert!(deleted.len() == 5 && deleted.iter().all(Result::is_ok), "{}: {deleted:?}", store.name);
        for at in &all {
            assert_eq!(store.storage.find(at).await.unwrap(), None, "{}", store.name);
        }
        let nowhere = Location { bucket: "no-such-bucket-anywhere".to_owned(), ..all[0].clone() };
        put(store, &all[0], vec![7; 10]).await;
        let mixed = store.storage.delete_all(&[nowhere.clone(), all[0].clone(), nowhere]).await;
        assert!(mixed[0].is_err() && mixed[1].is_ok() && mixed[2].is_err(), "{}: {mixed:?}", store.name);
    })
    .await;
}

#[tokio::test]
async fn nothing_but_the_object_that_was_meant_is_copied() {
    each_store(async |store| {
        let by_parts = copying_by_parts(store).await;
        let (from, gone, to) = (store.at("temp/from"), store.at("temp/gone"), store.at("assets/to"));
        put(store, &from, vec![7; 6 * MIB]).await;
        let etag = store.storage.head(&from).await.unwrap().etag;
        put(store, &from, vec![8; 6 * MIB]).await;
        for storage in [&store.storage, &by_parts] {
            for (at, kind) in [(&from, ErrorKind::Changed), (&gone, ErrorKind::NotFound)] {
                let source = Source { at, etag: &etag, size: 6 << 20 };
                let error = storage.copy(source, &to, "text/plain").await.unwrap_err();
                assert_eq!(error.kind, kind, "{}: {error}", store.name);
            }
            let nowhere = Location { bucket: "no-such-bucket-anywhere".to_owned(), ..from.clone() };
            let source = Source { at: &nowhere, etag: &etag, size: 6 << 20 };
            let error = storage.copy(source, &to, "text/plain").await.unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Invalid | ErrorKind::Refused), "{}: {error}", store.name);
        }
        assert_eq!(store.storage.head(&to).await.unwrap_err().kind, ErrorKind::NotFound);
        assert!(store.storage.uploads(&from.bucket, "").next().await.unwrap().unwrap().items.is_empty());
    })
    .await;
}

/// A page has a thousand at most.
#[tokio::test]
async fn what_lies_under_a_prefix_is_listed_over_all_pages() {
    each_store(async |store| {
        let key = |n: usize| store.at(&format!("list/{n:04} +%📦"));
        put(store, &store.at("lis"), vec![1]).await;
        put(store, &store.at("lisu"), vec![1]).await;
        stream::iter(0..1_050).for_each_concurrent(16, async |n| put(store, &key(n), vec![1]).await).await;
        let bucket = store.storage.bucket();
        let mut pages = store.storage.objects(bucket, "list/");
        let mut listed: Vec<ListedObject> = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            assert!((chrono::Utc::now() - page.store_time).abs() < chrono::TimeDelta::minutes(1));
            assert!(page.items.iter().all(|item| (page.store_time - item.last_modified).num_seconds() >= -1));
            listed.extend(page.items);
        }
        let keys: Vec<_> = listed.into_iter().map(|item| item.key).collect();
        assert!(keys == (0..1_050).map(|n| key(n).key).collect::<Vec<_>>(), "{}: {} keys", store.name, keys.len());
        assert!(pages.next().await.unwrap().is_none());

        let places: Vec<_> = (0..1_050).map(|n| key(n / 3)).collect();
        let opened = stream::iter(&places).map(|at| store.storage.open_multipart(at, "text/plain"));
        let mut opened: Vec<_> = opened.buffer_unordered(16).try_collect().await.unwrap();
        let mut pages = store.storage.uploads(bucket, "list/");
        let mut listed: Vec<ListedUpload> = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            assert!(page.items.iter().all(|item| (page.store_time - item.initiated).num_seconds() >= -1));
            listed.extend(page.items);
        }
        assert!(listed.is_sorted_by(|a, b| a.key <= b.key));
        let mut ids: Vec<_> = listed.into_iter().map(|item| item.upload_id).collect();
        ids.sort_unstable();
        opened.sort_unstable();
        assert!(ids == opened, "{}: {} opened, {} listed", store.name, opened.len(), ids.len());

        let (mut names, more) = store.storage.folders(bucket, "").await.unwrap();
        names.sort_unstable();
        assert_eq!((names, more), (["lis", "list/", "lisu"].map(str::to_owned).to_vec(), false), "{}", store.name);
        assert!(store.storage.folders(bucket, "list/").await.unwrap().1, "{}: there are more", store.name);
    })
    .await;
}

#[tokio::test]
async fn a_small_object_is_put_once_and_read_whole() {
    each_store(async |store| {
        let at = store.at("temp/uploads/.owner");
        assert_eq!(store.storage.read(&at, 100).await.unwrap_err().kind, ErrorKind::NotFound);
        store.storage.put_if_absent(&at, b"{\"a\":1}").await.unwrap();
        assert_eq!(store.storage.read(&at, 100).await.unwrap(), b"{\"a\":1}");
        assert_eq!(store.storage.read(&at, 6).await.unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(stored(store, &at).await.1, "application/json");
        store.storage.put_if_absent(&at, b"{\"b\":2}").await.unwrap();
        let kept = store.storage.read(&at, 100).await.unwrap() == b"{\"a\":1}";
        println!("{} {} the condition of a PUT", store.name, if kept { "honours" } else { "does not know" });
        assert!(kept || store.name == "garage");
    })
    .await;
}
