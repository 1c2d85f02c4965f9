//! Presigned URLs, used as a browser would.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use quaymaster::settings;
use quaymaster::storage::{Location, Storage};

use crate::kit::{Store, each_store};

const TTL: Duration = Duration::from_secs(900);

/// What a path may contain that a signature has to escape, and what it must leave alone.
const KEYS: [&str; 6] = [
    "temp/uploads/01997b7e-0000-7000-8000-000000000000/original",
    "a b/c+d/e%20f/100%.txt",
    "größe/файл/📦.mov",
    "-_.~!$&'()*,;=:@/x",
    "q?x=1#frag&y[0]={z}|\\^`\"<>",
    "a//b/ /c",
];

fn sha256(data: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, data).as_ref().try_into().unwrap()
}

async fn stored(store: &Store, at: &Location) -> Vec<u8> {
    let object = store.s3.get_object().bucket(&at.bucket).key(&at.key).send().await.unwrap();
    object.body.collect().await.unwrap().to_vec()
}

#[tokio::test]
async fn a_put_url_takes_the_bytes_and_a_get_url_gives_them_back_under_any_key() {
    each_store(async |store| {
        let signer = store.storage.signer().await.unwrap();
        for key in KEYS {
            let at = store.at(key);
            let body = key.as_bytes().to_vec();
            let put = signer.put_object(&at, body.len() as u64, "text/plain; charset=utf-8", None, TTL);
            let answer = store.put(&put.url, &put.headers, body.clone()).await;
            assert_eq!(answer.status(), 200, "{} {key}: {}", store.name, answer.text().await.unwrap());
            assert_eq!(stored(store, &at).await, body, "{} {key}", store.name);

            let answer = store.http.get(signer.get_object(&at, TTL).url).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{} {key}", store.name);
            assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
            assert_eq!(answer.bytes().await.unwrap(), body, "{} {key}", store.name);
        }
    })
    .await;
}

#[tokio::test]
async fn a_part_url_works_under_any_key() {
    each_store(async |store| {
        for key in KEYS {
            let at = store.at(key);
            let id = store.storage.open_multipart(&at, "text/plain").await.unwrap();
            let mut signer = store.storage.signer().await.unwrap().parts(&at, &id, TTL);
            for (number, body) in [(1, "one"), (2, "four")] {
                store.put_part(&signer.url(number, body.len() as u64), body.into()).await;
            }
            let sizes: Vec<_> = store.storage.list_parts(&at, &id).await.unwrap().iter().map(|p| p.size).collect();
            assert_eq!(sizes, [3, 4], "{} {key}", store.name);
        }
    })
    .await;
}

#[tokio::test]
async fn a_put_url_takes_nothing_but_what_was_announced() {
    each_store(async |store| {
        let signer = store.storage.signer().await.unwrap();
        let at = store.at("temp/uploads/strict/original");
        let put = signer.put_object(&at, 5, "text/plain", Some(sha256(b"right")), TTL);
        let names: Vec<_> = put.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["content-type", "x-amz-checksum-sha256"]);

        let sum = base64::engine::general_purpose::STANDARD.encode(sha256(b"wrong"));
        let other_type = [("content-type", "text/html".to_owned()), put.headers[1].clone()];
        let other_sum = [put.headers[0].clone(), ("x-amz-checksum-sha256", sum)];
        for (why, headers, body) in [
            ("too long", &put.headers[..], "right!"),
            ("too short", &put.headers[..], "righ"),
            ("another type", &other_type[..], "right"),
            ("another content", &put.headers[..], "wrong"),
            ("another checksum", &other_sum[..], "wrong"),
            ("no checksum", &put.headers[..1], "right"),
        ] {
            let status = store.put(&put.url, headers, body).await.status();
            assert!(status.is_client_error(), "{} {why}: {status}", store.name);
            assert!(store.storage.head(&at).await.is_err(), "{} {why}", store.name);
        }
        assert_eq!(store.put(&put.url, &put.headers, "right").await.status(), 200, "{}", store.name);
        assert_eq!(stored(store, &at).await, b"right");
    })
    .await;
}

#[tokio::test]
async fn a_part_url_takes_neither_another_size_nor_another_number() {
    each_store(async |store| {
        let at = store.at("temp/uploads/strict-parts/original");
        let id = store.storage.open_multipart(&at, "text/plain").await.unwrap();
        let url = store.storage.signer().await.unwrap().parts(&at, &id, TTL).url(1, 3);
        for (why, url, body) in [
            ("too long", url.clone(), "four"),
            ("too short", url.clone(), "tw"),
            ("another part", url.replace("partNumber=1&", "partNumber=2&"), "one"),
        ] {
            let status = store.put(&url, &[], body).await.status();
            assert!(status.is_client_error(), "{} {why}: {status}", store.name);
        }
        assert_eq!(store.storage.list_parts(&at, &id).await.unwrap(), []);
        store.put_part(&url, "one".into()).await;
    })
    .await;
}

#[tokio::test]
async fn a_url_ends_when_it_says() {
    each_store(async |store| {
        let at = store.at("temp/uploads/brief/original");
        let put = store.storage.signer().await.unwrap().put_object(&at, 3, "text/plain", None, Duration::from_secs(1));
        let left = put.expires_at - chrono::Utc::now();
        assert!(left <= chrono::TimeDelta::seconds(1), "{left}");
        // Garage counts the last second in.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let status = store.put(&put.url, &put.headers, "one").await.status();
        assert!(status.is_client_error(), "{}: {status}", store.name);
    })
    .await;
}

#[tokio::test]
async fn urls_may_name_the_bucket_in_the_host() {
    each_store(async |store| {
        let Some(domain) = store.root_domain else {
            println!("{} takes no bucket from the host here", store.name);
            return;
        };
        let address: SocketAddr = store.settings.endpoint.as_deref().unwrap()["http://".len()..].parse().unwrap();
        let settings = settings::Storage {
            public_endpoint: Some(format!("http://{domain}:{}", address.port())),
            path_style: Some(false),
            ..store.settings.clone()
        };
        let signer = Storage::connect(&settings).await.unwrap().signer().await.unwrap();
        let at = store.at("temp/uploads/host/original");
        let put = signer.put_object(&at, 3, "text/plain", None, TTL);
        assert!(put.url.starts_with(&format!("http://{}.{domain}:", at.bucket)), "{}", put.url);
        let http = reqwest::Client::builder().resolve(&format!("{}.{domain}", at.bucket), address).build().unwrap();
        let request = http.put(&put.url).header("content-type", "text/plain").body("one");
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert_eq!(stored(store, &at).await, b"one");
        let got = http.get(signer.get_object(&at, TTL).url).send().await.unwrap();
        assert_eq!(got.text().await.unwrap(), "one");
    })
    .await;
}
