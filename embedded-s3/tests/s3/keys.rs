//! Keys of every kind; no key is used as a path.

use crate::kit::*;

#[tokio::test]
async fn any_text_up_to_1024_bytes_is_a_key() {
    let mut store = TestStore::start().await;
    let long = "x".repeat(1024);
    let wide = "ä".repeat(512);
    let keys = [
        "a",
        "a/b",
        "a/b/",
        "a//b",
        "/leading",
        "..",
        "../../etc/passwd",
        "a/../b",
        ".",
        "with space",
        "plus+plus",
        "per%cent %41",
        "question?mark=1&x",
        "hash#tag",
        "quote\"'<>&",
        "ünïcödé/日本語/😀",
        "back\\slash",
        "tab\tnewline\n",
        "control\u{1}",
        "~tilde*star",
        long.as_str(),
        wide.as_str(),
    ];
    for key in keys {
        store.put(key, key.as_bytes()).await;
    }
    store.restart().await;
    for key in keys {
        assert_eq!(store.get(key).await, key.as_bytes(), "{key:?}");
    }
    assert_eq!(store.blobs(keys.len()).await, keys.len());

    let mut sorted: Vec<_> = keys.iter().map(|key| key.as_bytes()).collect();
    sorted.sort_unstable();
    let list = store.s3.list_objects_v2().bucket(BUCKET).encoding_type("url".into()).send().await.unwrap();
    let listed: Vec<Vec<u8>> = list
        .contents()
        .iter()
        .map(|object| percent_encoding::percent_decode_str(object.key().unwrap()).collect())
        .collect();
    assert_eq!(listed, sorted);

    let too_long = store.s3.put_object().bucket(BUCKET).key("x".repeat(1025)).send().await.map_err(code);
    assert_eq!(too_long.unwrap_err(), "KeyTooLongError");
}

#[tokio::test]
async fn a_presigned_url_works_for_a_difficult_key() {
    let store = TestStore::start().await;
    for key in ["a b/ä+%41", "x//y", "quote\"<&>'"] {
        let url = store.s3.put_object().bucket(BUCKET).key(key).presigned(minutes(5)).await.unwrap();
        assert_eq!(store.send(&url, "hello").await.status(), 200, "{key:?}");
        assert_eq!(store.get(key).await, b"hello");
    }
}

#[tokio::test]
async fn a_key_leads_into_no_other_bucket() {
    let store = TestStore::start().await;
    store.s3.create_bucket().bucket("private").send().await.unwrap();
    let put = store.s3.put_object().bucket("private").key("secret").body("s".as_bytes().to_vec().into());
    put.send().await.unwrap();
    let got = store.s3.get_object().bucket(BUCKET).key("../private/secret").send().await;
    assert_eq!(got.map_err(code).unwrap_err(), "NoSuchKey");
    let copied = store.s3.copy_object().bucket(BUCKET).key("x").copy_source(format!("{BUCKET}/../private/secret"));
    assert_eq!(copied.send().await.map_err(code).unwrap_err(), "NoSuchKey");
}
