//! Limits on what one request may carry.

use crate::kit::*;
use crate::sign::signed;

#[tokio::test]
async fn a_request_in_xml_has_its_limit() {
    let store = TestStore::start().await;
    let id = store.create("a").await;
    let url = store.url(&format!("/{BUCKET}/a?uploadId={id}"));
    let post = signed(&store.http, "POST", &url, "UNSIGNED-PAYLOAD", &[]).body(vec![b' '; 5 * MIB]);
    assert_eq!(code_of(post.send().await.unwrap()).await, (400, "MaxMessageLengthExceeded".into()));
}

#[tokio::test]
async fn what_a_client_insists_on_is_done_or_refused() {
    let store = TestStore::start().await;
    let url = store.url(&format!("/{BUCKET}/a"));
    for (name, value) in [
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-write-offset-bytes", "5"),
    ] {
        let put = signed(&store.http, "PUT", &url, "UNSIGNED-PAYLOAD", &[(name, value)]).body("x");
        assert_eq!(code_of(put.send().await.unwrap()).await, (501, "NotImplemented".into()), "{name}");
    }
    assert_eq!(store.blobs(0).await, 0);
}
