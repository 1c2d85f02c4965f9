//! CORS: the answers for a browser on another origin.

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};

use crate::kit::*;

const APP: &str = "https://app.example";

async fn allow_app(store: &TestStore) {
    let rule = CorsRule::builder()
        .allowed_origins(APP)
        .allowed_origins("https://*.review.example")
        .allowed_methods("PUT")
        .allowed_methods("GET")
        .allowed_headers("content-type")
        .allowed_headers("x-amz-*")
        .expose_headers("x-amz-request-id")
        .max_age_seconds(600)
        .build()
        .unwrap();
    let rules = CorsConfiguration::builder().cors_rules(rule).build().unwrap();
    store.s3.put_bucket_cors().bucket(BUCKET).cors_configuration(rules).send().await.unwrap();
}

async fn preflight(store: &TestStore, path: &str, origin: &str, method: &str, headers: &str) -> reqwest::Response {
    let request = store.http.request(reqwest::Method::OPTIONS, store.url(path));
    let request = request.header("origin", origin).header("access-control-request-method", method);
    request.header("access-control-request-headers", headers).send().await.unwrap()
}

#[tokio::test]
async fn rules_are_kept() {
    let mut store = TestStore::start().await;
    let get = |s3: aws_sdk_s3::Client| async move { s3.get_bucket_cors().bucket(BUCKET).send().await.map_err(code) };
    assert_eq!(get(store.s3.clone()).await.unwrap_err(), "NoSuchCORSConfiguration");
    allow_app(&store).await;
    store.restart().await;
    let rules = get(store.s3.clone()).await.unwrap();
    let rule = &rules.cors_rules()[0];
    assert_eq!(rule.allowed_origins(), [APP, "https://*.review.example"]);
    assert_eq!(rule.allowed_methods(), ["PUT", "GET"]);
    assert_eq!(rule.max_age_seconds(), Some(600));
    assert_eq!(preflight(&store, "/assets/a", APP, "PUT", "").await.status(), 204);
    store.s3.delete_bucket_cors().bucket(BUCKET).send().await.unwrap();
    assert_eq!(get(store.s3.clone()).await.unwrap_err(), "NoSuchCORSConfiguration");
    assert_eq!(preflight(&store, "/assets/a", APP, "PUT", "").await.status(), 403);

    let wrong = CorsRule::builder().allowed_origins("*").allowed_methods("PATCH").build().unwrap();
    let wrong = CorsConfiguration::builder().cors_rules(wrong).build().unwrap();
    let refused = store.s3.put_bucket_cors().bucket(BUCKET).cors_configuration(wrong).send().await;
    assert_eq!(refused.map_err(code).unwrap_err(), "InvalidRequest");
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_rules() {
    let store = TestStore::start().await;
    allow_app(&store).await;
    let allowed = preflight(&store, "/assets/a/b?partNumber=1", APP, "PUT", "Content-Type, x-amz-meta-a").await;
    assert_eq!(allowed.status(), 204);
    let headers = allowed.headers();
    assert_eq!(headers["access-control-allow-origin"], APP);
    assert_eq!(headers["access-control-allow-methods"], "PUT, GET");
    assert_eq!(headers["access-control-allow-headers"], "content-type, x-amz-meta-a");
    assert_eq!(headers["access-control-max-age"], "600");
    assert!(headers["vary"].to_str().unwrap().contains("Origin"));
    assert_eq!(preflight(&store, "/assets/a", "https://pr-1.review.example", "GET", "").await.status(), 204);

    let refused = [
        preflight(&store, "/assets/a", "https://evil.example", "PUT", "").await,
        preflight(&store, "/assets/a", APP, "DELETE", "").await,
        preflight(&store, "/assets/a", APP, "PUT", "authorization").await,
        preflight(&store, "/other/a", APP, "PUT", "").await,
    ];
    for answer in refused {
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
        assert_eq!(code_of(answer).await, (403, "AccessForbidden".into()));
    }
    let bare = store.http.request(reqwest::Method::OPTIONS, store.url("/assets/a")).send().await.unwrap();
    assert_eq!(bare.status(), 400);
}

#[tokio::test]
async fn every_answer_can_be_read_by_the_page_even_an_error() {
    let store = TestStore::start().await;
    allow_app(&store).await;
    let url = store.s3.put_object().bucket(BUCKET).key("a").presigned(minutes(5)).await.unwrap();
    let sent = store.http.put(url.uri()).header("origin", APP).body("x").send().await.unwrap();
    assert_eq!(sent.status(), 200);
    assert_eq!(sent.headers()["access-control-allow-origin"], APP);
    assert_eq!(sent.headers()["access-control-expose-headers"], "x-amz-request-id, ETag");
    assert!(sent.headers().contains_key("etag"));

    let refused = store.http.put(store.url("/assets/a")).header("origin", APP).body("x").send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.headers()["access-control-allow-origin"], APP);
    let stranger = store.http.put(url.uri()).header("origin", "https://evil.example").body("x").send().await.unwrap();
    assert_eq!(stranger.status(), 200, "CORS protects readers, signatures protect the store");
    assert!(!stranger.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_star_is_answered_with_a_star() {
    let store = TestStore::start().await;
    let rule = CorsRule::builder().allowed_origins("*").allowed_methods("GET").build().unwrap();
    let rules = CorsConfiguration::builder().cors_rules(rule).build().unwrap();
    store.s3.put_bucket_cors().bucket(BUCKET).cors_configuration(rules).send().await.unwrap();
    let answer = preflight(&store, "/assets/a", "null", "GET", "").await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn a_star_covers_whatever_a_library_adds() {
    let store = TestStore::start().await;
    let rule = CorsRule::builder().allowed_origins(APP).allowed_methods("PUT").allowed_headers("*").build().unwrap();
    let rules = CorsConfiguration::builder().cors_rules(rule).build().unwrap();
    store.s3.put_bucket_cors().bucket(BUCKET).cors_configuration(rules).send().await.unwrap();
    let asked = "content-type,traceparent, X-Requested-With,sentry-trace,baggage";
    let answer = preflight(&store, "/assets/a", APP, "PUT", asked).await;
    assert_eq!(answer.status(), 204);
    let named = answer.headers()["access-control-allow-headers"].to_str().unwrap();
    assert_eq!(named, "content-type, traceparent, x-requested-with, sentry-trace, baggage");
}
