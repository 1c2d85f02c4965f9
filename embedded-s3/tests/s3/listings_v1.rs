//! The older listings, which many tools ask for by default: ListObjects and ListObjectVersions.

use aws_sdk_s3::operation::list_object_versions::builders::ListObjectVersionsFluentBuilder;
use aws_sdk_s3::operation::list_objects::builders::ListObjectsFluentBuilder;
use aws_sdk_s3::types::EncodingType;

use crate::kit::*;

/// Returns all pages. Continues each as a client of S3 does: from NextMarker, or else from the last key.
async fn pages(list: ListObjectsFluentBuilder) -> Vec<Vec<String>> {
    let (mut pages, mut marker) = (Vec::new(), None);
    loop {
        let page = list.clone().set_marker(marker.clone()).send().await.unwrap();
        assert_eq!(page.marker().unwrap_or_default(), marker.unwrap_or_default());
        let mut entries: Vec<String> = page.contents().iter().map(|object| object.key().unwrap().into()).collect();
        entries.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
        entries.sort();
        let truncated = page.is_truncated().unwrap();
        assert_eq!(page.next_marker().is_some(), truncated && page.delimiter().is_some());
        marker = page.next_marker().map(str::to_owned).or_else(|| entries.last().cloned());
        pages.push(entries);
        if !truncated {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_by_the_last_key() {
    let store = TestStore::start().await;
    let keys: Vec<String> = (0..25).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        store.put(key, "x").await;
    }
    let list = || store.s3.list_objects().bucket(BUCKET);
    for size in [1, 4, 24, 25, 26] {
        let pages = pages(list().max_keys(size)).await;
        assert_eq!(pages.concat(), keys, "pages of {size}");
        assert_eq!(pages.len(), keys.len().div_ceil(size as usize));
    }
    assert_eq!(pages(list().prefix("k1").max_keys(3)).await.concat(), keys[10..20]);
    let behind = list().marker("k19a").send().await.unwrap();
    assert_eq!(behind.contents().len(), 5);
    let first = &behind.contents()[0];
    assert_eq!((first.key(), first.size()), (Some("k20"), Some(1)));
    assert!(first.e_tag().is_some() && first.last_modified().is_some());
    assert_eq!((behind.name(), behind.max_keys(), behind.prefix()), (Some(BUCKET), Some(1000), Some("")));
    let none = list().max_keys(0).send().await.unwrap();
    assert_eq!((none.contents().len(), none.is_truncated()), (0, Some(false)));
    let unknown = store.s3.list_objects().bucket("unknown").send().await;
    assert_eq!(unknown.map_err(code).unwrap_err(), "NoSuchBucket");
}

#[tokio::test]
async fn a_delimiter_rolls_up_and_names_the_next_marker() {
    let store = TestStore::start().await;
    for key in ["a", "b/", "b/1", "b/2", "b/c/3", "b0", "c//d", "z"] {
        store.put(key, "x").await;
    }
    let list = || store.s3.list_objects().bucket(BUCKET).delimiter("/");
    for size in 1..7 {
        assert_eq!(pages(list().max_keys(size)).await.concat(), ["a", "b/", "b0", "c/", "z"], "pages of {size}");
        let inside = pages(list().prefix("b/").max_keys(size)).await.concat();
        assert_eq!(inside, ["b/", "b/1", "b/2", "b/c/"], "pages of {size}");
    }
}

#[tokio::test]
async fn keys_are_written_as_they_were_asked_for() {
    let store = TestStore::start().await;
    for key in ["a b/ü", "a b/ü2", "c+d"] {
        store.put(key, "x").await;
    }
    let list = store.s3.list_objects().bucket(BUCKET).delimiter("/").encoding_type(EncodingType::Url).max_keys(1);
    let page = list.clone().send().await.unwrap();
    assert_eq!((page.common_prefixes()[0].prefix(), page.next_marker()), (Some("a%20b/"), Some("a%20b/")));
    assert_eq!((page.delimiter(), page.encoding_type()), (Some("/"), Some(&EncodingType::Url)));
    let page = list.marker("a b/").send().await.unwrap();
    assert_eq!((page.contents()[0].key(), page.marker()), (Some("c%2Bd"), Some("a%20b/")));
}

async fn versions(list: ListObjectVersionsFluentBuilder) -> Vec<String> {
    let (mut keys, mut marker) = (Vec::new(), (None, None));
    loop {
        let (key, id) = marker;
        let page = list.clone().set_key_marker(key).set_version_id_marker(id).send().await.unwrap();
        for version in page.versions() {
            assert_eq!((version.version_id(), version.is_latest()), (Some("null"), Some(true)));
            keys.push(version.key().unwrap().to_owned());
        }
        keys.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
        if !page.is_truncated().unwrap() {
            return keys;
        }
        marker = (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
    }
}

#[tokio::test]
async fn a_bucket_is_emptied_version_by_version() {
    let store = TestStore::start().await;
    for key in ["a", "b/1", "b/2", "c"] {
        store.put(key, "x").await;
    }
    let list = || store.s3.list_object_versions().bucket(BUCKET);
    for size in 1..5 {
        assert_eq!(versions(list().max_keys(size)).await, ["a", "b/1", "b/2", "c"], "pages of {size}");
        let mut rolled = versions(list().delimiter("/").max_keys(size)).await;
        rolled.sort();
        assert_eq!(rolled, ["a", "b/", "c"], "pages of {size}");
    }
    for version in list().send().await.unwrap().versions() {
        let delete = store.s3.delete_object().bucket(BUCKET).key(version.key().unwrap());
        delete.version_id(version.version_id().unwrap()).send().await.unwrap();
    }
    assert!(versions(list()).await.is_empty());
    store.s3.delete_bucket().bucket(BUCKET).send().await.unwrap();
}

#[tokio::test]
async fn a_bucket_says_where_it_is_and_that_it_has_no_versions() {
    let store = TestStore::start().await;
    let versioning = store.s3.get_bucket_versioning().bucket(BUCKET).send().await.unwrap();
    assert_eq!((versioning.status(), versioning.mfa_delete()), (None, None));
    let location = store.s3.get_bucket_location().bucket(BUCKET).send().await.unwrap();
    assert!(location.location_constraint().is_none_or(|region| region.as_str().is_empty()), "{location:?}");
    let unknown = store.s3.get_bucket_versioning().bucket("unknown").send().await;
    assert_eq!(unknown.map_err(code).unwrap_err(), "NoSuchBucket");
}
