//! Range requests (RFC 9110), as S3 answers them: one range, or the whole object.

use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};

use crate::kit::*;

/// Sends a GET or HEAD with these headers to a presigned URL.
async fn ask(store: &TestStore, method: &str, key: &str, headers: &[(&str, &str)]) -> Response {
    let url = match method {
        "GET" => store.s3.get_object().bucket(BUCKET).key(key).presigned(minutes(5)).await.unwrap(),
        _ => store.s3.head_object().bucket(BUCKET).key(key).presigned(minutes(5)).await.unwrap(),
    };
    let mut request = store.http.request(method.parse().unwrap(), url.uri());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn text<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Status, Content-Range and body.
type Expected = (u16, Option<&'static str>, &'static str);

const WHOLE: Expected = (200, None, "0123456789");
const NONE: Expected = (416, Some("bytes */10"), "InvalidRange");

const RANGES: [(&str, Expected); 19] = [
    ("bytes=0-0", (206, Some("bytes 0-0/10"), "0")),
    ("bytes=2-4", (206, Some("bytes 2-4/10"), "234")),
    ("bytes=7-", (206, Some("bytes 7-9/10"), "789")),
    ("bytes=7-99", (206, Some("bytes 7-9/10"), "789")),
    ("bytes=7-99999999999999999999", (206, Some("bytes 7-9/10"), "789")),
    ("bytes=-3", (206, Some("bytes 7-9/10"), "789")),
    ("bytes=-99", (206, Some("bytes 0-9/10"), "0123456789")),
    ("Bytes=2-4", (206, Some("bytes 2-4/10"), "234")),
    ("bytes=2-4,", (206, Some("bytes 2-4/10"), "234")),
    ("bytes=10-", NONE),
    ("bytes=99-100", NONE),
    ("bytes=99999999999999999999-", NONE),
    ("bytes=-0", NONE),
    ("bytes=0-1,3-4", WHOLE),
    ("bytes=0-1, 99-100", WHOLE),
    ("bytes=4-2", WHOLE),
    ("bytes=a-b", WHOLE),
    ("lines=1-2", WHOLE),
    ("nonsense", WHOLE),
];

#[tokio::test]
async fn one_range_is_sent_and_all_else_ignored() {
    let store = TestStore::start().await;
    store.put("a", "0123456789").await;
    for (range, (status, content_range, body)) in RANGES {
        let got = ask(&store, "GET", "a", &[("range", range)]).await;
        assert_eq!(got.status(), status, "{range}");
        assert_eq!(text(&got, CONTENT_RANGE.as_str()), content_range, "{range}");
        if status == 416 {
            assert_eq!(text(&got, "content-type"), Some("application/xml"), "{range}");
            assert_eq!(code_of(got).await, (status, body.into()), "{range}");
        } else {
            assert_eq!(text(&got, "accept-ranges"), Some("bytes"), "{range}");
            assert_eq!(text(&got, CONTENT_LENGTH.as_str()), Some(body.len().to_string().as_str()), "{range}");
            assert_eq!(got.text().await.unwrap(), body, "{range}");
        }

        let head = ask(&store, "HEAD", "a", &[("range", range)]).await;
        assert_eq!(head.status(), status, "HEAD {range}");
        assert_eq!(text(&head, CONTENT_RANGE.as_str()), content_range, "HEAD {range}");
        if status != 416 {
            assert_eq!(text(&head, CONTENT_LENGTH.as_str()), Some(body.len().to_string().as_str()), "HEAD {range}");
        }
    }
}

#[tokio::test]
async fn a_range_that_is_signed_is_read_in_the_same_way() {
    let store = TestStore::start().await;
    store.put("a b", "0123456789").await;
    for (range, (status, content_range, body)) in RANGES {
        let got = store.s3.get_object().bucket(BUCKET).key("a b").range(range).send().await;
        match got {
            Ok(got) => {
                assert_eq!(got.content_range(), content_range, "{range}");
                assert_eq!(got.body.collect().await.unwrap().to_vec(), body.as_bytes(), "{range}");
            }
            Err(error) => assert_eq!((status, code(error).as_str()), (416, body), "{range}"),
        }
    }
    let stranger = client_of(&store.url(""), KEY_ID, "another secret");
    for range in ["bytes=0-1", "bytes=0-1,3-4"] {
        let refused = stranger.get_object().bucket(BUCKET).key("a b").range(range).send().await;
        assert_eq!(refused.map_err(code).unwrap_err(), "SignatureDoesNotMatch", "{range}");
        let unsigned = store.http.get(store.url("/assets/a%20b")).header("range", range).send().await.unwrap();
        assert_eq!(code_of(unsigned).await, (403, "AccessDenied".into()), "{range}");
    }
    let missing = store.s3.get_object().bucket(BUCKET).key("b").range("bytes=0-1,3-4").send().await;
    assert_eq!(missing.map_err(code).unwrap_err(), "NoSuchKey");
}

#[tokio::test]
async fn what_else_a_url_asks_for_is_answered_beside_an_ignored_range() {
    let store = TestStore::start().await;
    store.put("a", "0123456789").await;
    let url = store.s3.get_object().bucket(BUCKET).key("a").response_content_type("text/plain; charset=x");
    let url = url.presigned(minutes(5)).await.unwrap();
    let got = store.http.get(url.uri()).header("range", "lines=1-2").send().await.unwrap();
    assert_eq!((got.status().as_u16(), text(&got, "content-type")), (200, Some("text/plain; charset=x")));
    let late = url.uri().replace("X-Amz-Expires=300", "X-Amz-Expires=299");
    let refused = store.http.get(late).header("range", "lines=1-2").send().await.unwrap();
    assert_eq!(code_of(refused).await, (403, "SignatureDoesNotMatch".into()));
    let extra = store.http.get(url.uri()).header("range", "lines=1-2").header("x-amz-meta-a", "1");
    assert_eq!(code_of(extra.send().await.unwrap()).await, (403, "AccessDenied".into()));
}

#[tokio::test]
async fn an_empty_object_has_no_range() {
    let store = TestStore::start().await;
    store.put("a", "").await;
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"] {
        for method in ["GET", "HEAD"] {
            let answer = ask(&store, method, "a", &[("range", range)]).await;
            assert_eq!(answer.status(), 416, "{method} {range}");
            assert_eq!(text(&answer, CONTENT_RANGE.as_str()), Some("bytes */0"), "{method} {range}");
        }
    }
    assert_eq!(ask(&store, "GET", "a", &[("range", "bytes=0-1,2-3")]).await.status(), 200);
}

#[tokio::test]
async fn a_download_goes_on_only_with_the_same_version() {
    let store = TestStore::start().await;
    let etag = store.put("a", "0123456789").await;
    let modified = text(&ask(&store, "HEAD", "a", &[]).await, "last-modified").unwrap().to_owned();
    let status = async |validator: &str| {
        let headers = [("range", "bytes=2-4"), ("if-range", validator)];
        let (got, head) = (ask(&store, "GET", "a", &headers).await, ask(&store, "HEAD", "a", &headers).await);
        assert_eq!(got.status(), head.status(), "{validator}");
        got.status().as_u16()
    };
    assert_eq!(status(&etag).await, 206);
    for other in ["\"0123\"", &format!("W/{etag}"), "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"] {
        assert_eq!(status(other).await, 200, "{other}");
    }
    // A date identifies a version only after its second is over.
    while status(&modified).await == 200 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    store.put("a", "9876543210").await;
    let answer = ask(&store, "GET", "a", &[("range", "bytes=2-4"), ("if-range", &etag)]).await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, "9876543210".into()));
}
