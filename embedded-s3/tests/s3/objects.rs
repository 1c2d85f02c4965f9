//! Single objects: put, get, head, delete.

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
}

#[tokio::test]
async fn parts_become_an_object() {
    let store = TestStore::start().await;
    let (one, two) = (noise(1, PART), noise(2, MIB));
    let id = store.create("reel.mov").await;
    let parts =
        vec![store.part("reel.mov", &id, 1, one.clone()).await, store.part("reel.mov", &id, 2, two.clone()).await];
    let etag = store.complete("reel.mov", &id, parts).await.unwrap();
    assert!(etag.ends_with("-2\""), "{etag}");
    assert_eq!(store.get("reel.mov").await, [one, two].concat());
}

#[tokio::test]
async fn a_presigned_put_needs_no_key() {
    let store = TestStore::start().await;
    let url = store.s3.put_object().bucket(BUCKET).key("k").content_length(5).presigned(minutes(5)).await.unwrap();
    assert_eq!(store.send(&url, "hello").await.status(), 200);
    assert_eq!(store.get("k").await, b"hello");
    let list = store.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(list.contents()[0].key(), Some("k"));
}
