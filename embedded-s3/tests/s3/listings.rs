//! Listings of objects, parts and open uploads: pages, prefixes, delimiters.

use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;

use crate::kit::*;

/// Returns all pages, each with its keys and common prefixes in one sorted list.
async fn pages(list: ListObjectsV2FluentBuilder) -> Vec<Vec<String>> {
    let (mut pages, mut token) = (Vec::new(), None);
    loop {
        let page = list.clone().set_continuation_token(token).send().await.unwrap();
        let mut entries: Vec<String> = page.contents().iter().map(|object| object.key().unwrap().into()).collect();
        entries.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
        assert_eq!(page.key_count(), Some(entries.len() as i32));
        entries.sort();
        pages.push(entries);
        token = page.next_continuation_token().map(str::to_owned);
        assert_eq!(page.is_truncated(), Some(token.is_some()));
        if token.is_none() {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let store = TestStore::start().await;
    let keys: Vec<String> = (0..25).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        store.put(key, "x").await;
    }
    let list = || store.s3.list_objects_v2().bucket(BUCKET);
    for size in [1, 4, 5, 24, 25, 26] {
        let pages = pages(list().max_keys(size)).await;
        assert_eq!(pages.concat(), keys, "pages of {size}");
        assert_eq!(pages.len(), keys.len().div_ceil(size as usize));
    }
    assert_eq!(pages(list().prefix("k1").max_keys(3)).await.concat(), keys[10..20]);
    assert_eq!(pages(list().start_after("k19")).await.concat(), keys[20..]);
    assert_eq!(pages(list().start_after("k19a").max_keys(2)).await.concat(), keys[20..]);
    assert_eq!(pages(list().prefix("none")).await, [Vec::<String>::new()]);
    assert_eq!(pages(list().max_keys(0)).await, [Vec::<String>::new()]);
    let wrong = list().continuation_token("not a token!").send().await;
    assert_eq!(wrong.map_err(code).unwrap_err(), "InvalidArgument");
}

#[tokio::test]
async fn a_delimiter_rolls_up() {
    let store = TestStore::start().await;
    for key in ["a", "b/", "b/1", "b/2", "b/c/3", "b0", "c//d", "ü/x", "z"] {
        store.put(key, "x").await;
    }
    let list = || store.s3.list_objects_v2().bucket(BUCKET).delimiter("/");
    for size in 1..8 {
        let all = pages(list().max_keys(size)).await;
        assert_eq!(all.concat(), ["a", "b/", "b0", "c/", "z", "ü/"], "pages of {size}");
        let inside = pages(list().prefix("b/").max_keys(size)).await;
        assert_eq!(inside.concat(), ["b/", "b/1", "b/2", "b/c/"], "pages of {size}");
    }
    assert_eq!(pages(list().prefix("b")).await.concat(), ["b/", "b0"]);
    assert_eq!(pages(list().prefix("c/")).await.concat(), ["c//"]);
    assert_eq!(pages(list().start_after("b/1")).await.concat(), ["b/", "b0", "c/", "z", "ü/"]);
    assert_eq!(pages(list().delimiter("/c/")).await.concat().len(), 9);
}

#[tokio::test]
async fn a_large_folder_costs_one_entry() {
    let store = TestStore::start().await;
    for n in 0..1100 {
        store.s3.put_object().bucket(BUCKET).key(format!("big/{n}")).send().await.unwrap();
    }
    store.put("small", "x").await;
    let list = store.s3.list_objects_v2().bucket(BUCKET).delimiter("/").max_keys(2);
    assert_eq!(pages(list).await, [["big/", "small"]]);
    assert_eq!(pages(store.s3.list_objects_v2().bucket(BUCKET)).await.concat().len(), 1101);
}

#[tokio::test]
async fn parts_are_listed_in_order_page_by_page() {
    let store = TestStore::start().await;
    let id = store.create("a").await;
    for number in [9, 1, 5, 10_000, 3] {
        store.part("a", &id, number, format!("part {number}")).await;
    }
    let list = || store.s3.list_parts().bucket(BUCKET).key("a").upload_id(&id);
    let (mut numbers, mut marker) = (Vec::new(), None);
    loop {
        let page = list().max_parts(2).set_part_number_marker(marker).send().await.unwrap();
        for part in page.parts() {
            assert_eq!(part.size(), Some(format!("part {}", part.part_number().unwrap()).len() as i64));
            assert!(part.e_tag().is_some() && part.last_modified().is_some());
            numbers.push(part.part_number().unwrap());
        }
        if page.is_truncated() != Some(true) {
            assert!(page.next_part_number_marker().is_none());
            break;
        }
        assert_eq!(page.parts().len(), 2);
        marker = page.next_part_number_marker().map(str::to_owned);
    }
    assert_eq!(numbers, [1, 3, 5, 9, 10_000]);
    assert!(list().max_parts(0).send().await.unwrap().parts().is_empty());
}

#[tokio::test]
async fn open_uploads_are_listed_page_by_page() {
    let store = TestStore::start().await;
    let mut opened = Vec::new();
    for key in ["b", "a", "b", "dir/x", "dir/y", "b", "other"] {
        opened.push((key.to_owned(), store.create(key).await));
    }
    // By key, and within a key in order of creation: the ids sort like the times.
    opened.sort();
    let list = || store.s3.list_multipart_uploads().bucket(BUCKET);
    for size in 1..9 {
        let (mut seen, mut key, mut id) = (Vec::new(), None, None);
        loop {
            let page = list().max_uploads(size).set_key_marker(key).set_upload_id_marker(id).send().await.unwrap();
            for upload in page.uploads() {
                assert!(upload.initiated().is_some());
                seen.push((upload.key().unwrap().to_owned(), upload.upload_id().unwrap().to_owned()));
            }
            if page.is_truncated() != Some(true) {
                break;
            }
            key = page.next_key_marker().map(str::to_owned);
            id = page.next_upload_id_marker().map(str::to_owned);
        }
        assert_eq!(seen, opened, "pages of {size}");
    }
    let keys = |uploads: &[aws_sdk_s3::types::MultipartUpload]| -> Vec<String> {
        uploads.iter().map(|upload| upload.key().unwrap().to_owned()).collect()
    };
    let under = list().prefix("dir/").send().await.unwrap();
    assert_eq!(keys(under.uploads()), ["dir/x", "dir/y"]);
    let behind = list().key_marker("b").send().await.unwrap();
    assert_eq!(keys(behind.uploads()), ["dir/x", "dir/y", "other"], "a key without an id skips all its uploads");
    let mut rolled = Vec::new();
    let mut marker = None;
    loop {
        let page = list().delimiter("/").max_uploads(1).prefix("d").set_key_marker(marker).send().await.unwrap();
        rolled.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
        marker = page.next_key_marker().map(str::to_owned);
        if page.is_truncated() != Some(true) {
            break;
        }
    }
    assert_eq!(rolled, ["dir/"]);
}
