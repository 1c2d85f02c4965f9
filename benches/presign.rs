//! How long presigning part URLs takes on one core, beside the SDK's own presigner: `cargo bench --bench presign`.
//!
//! A plain driver: what matters is the ratio within one run, in a table that can be pasted into a commit.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "server/sdk.rs"]
mod sdk;

use std::hint::black_box;
use std::time::{Duration, Instant};

use quaymaster::settings::{self, Provider, ProvisionStrategy, Secret};
use quaymaster::storage::{Location, Storage};
use sdk::{KEY, PART_BYTES, TTL, UPLOAD_ID};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!(
        "{:>7}  {:<11}  {:>10}  {:>8}  {:>10}  {:>8}  {:>6}",
        "URLs", "credential", "here", "per URL", "SDK", "per URL", "ratio"
    );
    for (credential, token) in [("long-lived", None), ("temporary", Some("t".repeat(900)))] {
        let storage = runtime.block_on(Storage::connect(&settings(token.as_deref()))).unwrap();
        let sdk = sdk::client(token);
        for count in [1, 100, 10_000] {
            let here = median(|| runtime.block_on(here(&storage, count)));
            let there = median(|| runtime.block_on(sdk::presign(&sdk, count)));
            let each = |time: Duration| format!("{:.2} µs", time.as_secs_f64() * 1e6 / f64::from(count));
            let ratio = there.as_secs_f64() / here.as_secs_f64();
            println!(
                "{count:>7}  {credential:<11}  {:>10}  {:>8}  {:>10}  {:>8}  {ratio:>5.1}x",
                format!("{:.1?}", here),
                each(here),
                format!("{:.1?}", there),
                each(there),
            );
        }
    }
}

/// Signs a batch as a request does: it first gets the current credential.
async fn here(storage: &Storage, count: u32) {
    let at = Location { bucket: "uploads".to_owned(), key: KEY.to_owned() };
    let parts = (1..=count).map(|number| (number, u64::from(PART_BYTES)));
    let mut signer = storage.signer().await.unwrap().parts(&at, UPLOAD_ID, TTL);
    let urls: Vec<_> = parts.map(|(number, size)| signer.url(number, size)).collect();
    assert_eq!(black_box(urls).len(), count as usize);
}

/// Returns the median time of as many runs as fit in a second, but at least five.
fn median(mut run: impl FnMut()) -> Duration {
    run();
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || begun.elapsed() < Duration::from_secs(1) {
        let one = Instant::now();
        run();
        times.push(one.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

fn settings(token: Option<&str>) -> settings::Storage {
    settings::Storage {
        provider: Some(Provider::Aws),
        bucket: Some("uploads".to_owned()),
        region: Some("eu-west-1".to_owned()),
        endpoint: None,
        public_endpoint: None,
        access_key_id: Some("AKIAIOSFODNN7EXAMPLE".to_owned()),
        secret_access_key: Some(Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")),
        session_token: token.map(Secret::new),
        path_style: None,
        provision_strategy: ProvisionStrategy::Shared,
        connect_timeout_secs: 3,
        read_timeout_secs: 30,
        attempt_timeout_secs: 60,
        max_attempts: 3,
        max_parts: None,
        min_part_bytes: None,
        max_part_bytes: None,
        max_object_bytes: None,
        max_copy_bytes: None,
    }
}
