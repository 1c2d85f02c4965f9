//! Memory use of the store: idle, during a large upload, and with many open uploads.

use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;

use crate::child::StoreProcess;
use crate::kit::*;

/// Bytes of the large part: `EMBEDDED_S3_PART_MIB` MiB, 256 by default.
fn large() -> u64 {
    let mib = std::env::var("EMBEDDED_S3_PART_MIB").ok().map_or(256, |mib| mib.parse::<u64>().unwrap());
    mib * MIB as u64
}

fn zeroes(length: u64) -> reqwest::Body {
    let frame = Bytes::from(vec![0_u8; 64 * 1024]);
    let frames = (length / frame.len() as u64) as usize;
    reqwest::Body::wrap_stream(futures_util::stream::repeat(frame).take(frames).map(Ok::<_, std::io::Error>))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_part_passes_through_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let process = StoreProcess::start(dir.path());
    let s3 = client(&process.endpoint);
    let length = large();
    let idle = process.memory_kib("VmRSS");

    let created = s3.create_multipart_upload().bucket(BUCKET).key("a").send().await.unwrap();
    let url = s3.upload_part().bucket(BUCKET).key("a").upload_id(created.upload_id().unwrap()).part_number(1);
    let url = url.content_length(length as i64).presigned(minutes(60)).await.unwrap();
    let begun = Instant::now();
    let http = reqwest::Client::new();
    let sent = http.put(url.uri()).header("content-length", length).body(zeroes(length)).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    let etag = sent.headers()["etag"].to_str().unwrap().to_owned();
    let put = begun.elapsed();
    let after_put = process.memory_kib("VmHWM");

    let begun = Instant::now();
    let part = aws_sdk_s3::types::CompletedPart::builder().part_number(1).e_tag(etag).build();
    let list = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(part).build();
    let complete = s3.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(created.upload_id().unwrap());
    complete.multipart_upload(list).send().await.unwrap();
    let completed = begun.elapsed();

    let begun = Instant::now();
    let url = s3.get_object().bucket(BUCKET).key("a").presigned(minutes(60)).await.unwrap();
    let mut body = http.get(url.uri()).send().await.unwrap().bytes_stream();
    let mut got = 0;
    while let Some(frame) = body.next().await {
        got += frame.unwrap().len() as u64;
    }
    assert_eq!(got, length);
    let get = begun.elapsed();
    let highest = process.memory_kib("VmHWM");

    let mib = length as f64 / MIB as f64;
    println!(
        "{mib} MiB: PUT {:.0} MiB/s, Complete {completed:?}, GET {:.0} MiB/s; memory: idle {idle} KiB, highest in PUT \
         {after_put} KiB, in all {highest} KiB",
        mib / put.as_secs_f64(),
        mib / get.as_secs_f64(),
    );
    assert!(highest < 32 * 1024, "{highest} KiB resident");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_uploads_cost_no_memory() {
    const UPLOADS: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let process = StoreProcess::start(dir.path());
    let s3 = client(&process.endpoint);
    s3.create_multipart_upload().bucket(BUCKET).key("warm").send().await.unwrap();
    let before = process.memory_kib("VmRSS");
    let begun = Instant::now();
    let lanes: Vec<_> = (0..8)
        .map(|lane| {
            let s3 = s3.clone();
            tokio::spawn(async move {
                for n in (lane..UPLOADS).step_by(8) {
                    s3.create_multipart_upload().bucket(BUCKET).key(format!("uploads/{n}")).send().await.unwrap();
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    let after = process.memory_kib("VmRSS");
    println!("{UPLOADS} uploads opened in {:?}: {before} KiB before, {after} KiB after", begun.elapsed());
    // Caches and buffers of eight busy connections fill once; the cost of an upload would appear ten thousand times.
    assert!(after < before + 8 * 1024, "{before} KiB before, {after} KiB after");
}
