//! Multipart uploads, and every way they can be refused.

use std::sync::Arc;

use aws_sdk_s3::types::CompletedPart;

use crate::kit::*;
use crate::sign::signed;

fn named(number: i32, etag: &str) -> CompletedPart {
    CompletedPart::builder().part_number(number).e_tag(etag).build()
}

#[tokio::test]
async fn parts_become_an_object() {
    let mut store = TestStore::start().await;
    let (one, two) = (noise(1, PART), noise(2, MIB));
    let created = store.s3.create_multipart_upload().bucket(BUCKET).key("reel.mov").content_type("video/quicktime");
    let id = created.metadata("asset", "42").send().await.unwrap().upload_id.unwrap();
    // Sent out of order, and with gaps in the numbers.
    let second = store.part("reel.mov", &id, 7, two.clone()).await;
    store.restart().await;
    let first = store.part("reel.mov", &id, 3, one.clone()).await;
    let etag = store.complete("reel.mov", &id, vec![first, second]).await.unwrap();
    assert!(etag.ends_with("-2\""), "{etag}");
    assert_eq!(store.get("reel.mov").await, [one, two].concat());
    let head = store.s3.head_object().bucket(BUCKET).key("reel.mov").send().await.unwrap();
    assert_eq!(head.e_tag(), Some(etag.as_str()));
    assert_eq!(head.content_type(), Some("video/quicktime"));
    assert_eq!(head.metadata().unwrap()["asset"], "42");
    assert_eq!(store.blobs(2).await, 2, "no byte is copied");
}

#[tokio::test]
async fn a_part_of_the_object_can_be_read_alone() {
    let store = TestStore::start().await;
    let (one, two) = (noise(1, PART), noise(2, MIB));
    let id = store.create("a").await;
    let parts = vec![store.part("a", &id, 1, one).await, store.part("a", &id, 5, two.clone()).await];
    store.complete("a", &id, parts).await.unwrap();
    let got = store.s3.get_object().bucket(BUCKET).key("a").part_number(2).send().await.unwrap();
    assert_eq!(got.parts_count(), Some(2));
    assert_eq!(got.content_range().unwrap(), format!("bytes {PART}-{}/{}", PART + MIB - 1, PART + MIB));
    assert_eq!(got.body.collect().await.unwrap().to_vec(), two);
    let none = store.s3.get_object().bucket(BUCKET).key("a").part_number(3).send().await;
    assert_eq!(none.map_err(code).unwrap_err(), "InvalidRange");
}

#[tokio::test]
async fn a_refused_complete_leaves_the_upload_as_it_was() {
    let store = TestStore::start().await;
    let id = store.create("a").await;
    let small = store.part("a", &id, 1, "small").await;
    let large = store.part("a", &id, 2, noise(1, PART)).await;
    let etag = |part: &CompletedPart| part.e_tag().unwrap().to_owned();
    let refused = [
        (vec![], "MalformedXML"),
        (vec![CompletedPart::builder().part_number(1).build()], "MalformedXML"),
        (vec![large.clone(), small.clone()], "InvalidPartOrder"),
        (vec![large.clone(), large.clone()], "InvalidPartOrder"),
        (vec![small.clone(), large.clone()], "EntityTooSmall"),
        (vec![named(1, &etag(&large))], "InvalidPart"),
        (vec![large.clone(), named(3, &etag(&large))], "InvalidPart"),
        (vec![named(1, "\"not an etag\"")], "InvalidPart"),
    ];
    for (parts, wanted) in refused {
        assert_eq!(store.complete("a", &id, parts).await.unwrap_err(), wanted);
    }
    let sized = store.s3.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(&id).mpu_object_size(1);
    let list = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(large.clone()).build();
    let sized = sized.multipart_upload(list).send().await;
    assert_eq!(sized.map_err(code).unwrap_err(), "InvalidRequest");
    assert_eq!(store.s3.get_object().bucket(BUCKET).key("a").send().await.map_err(code).unwrap_err(), "NoSuchKey");

    // A part that is not in the list is dropped.
    store.complete("a", &id, vec![large]).await.unwrap();
    assert_eq!(store.get("a").await, noise(1, PART));
    assert_eq!(store.blobs(1).await, 1);
}

#[tokio::test]
async fn what_is_no_xml_is_malformed() {
    let store = TestStore::start().await;
    let id = store.create("a").await;
    let url = store.url(&format!("/{BUCKET}/a?uploadId={id}"));
    for body in ["", "this is no xml", "<CompleteMultipartUpload><Part></CompleteMultipartUpload>"] {
        let post = signed(&store.http, "POST", &url, "UNSIGNED-PAYLOAD", &[]).body(body);
        assert_eq!(code_of(post.send().await.unwrap()).await, (400, "MalformedXML".into()), "{body:?}");
    }
}

#[tokio::test]
async fn the_last_of_two_parts_with_one_number_wins() {
    let store = TestStore::start().await;
    let id = store.create("a").await;
    let old = store.part("a", &id, 1, "old").await;
    let new = store.part("a", &id, 1, "new").await;
    assert_eq!(store.blobs(1).await, 1);
    assert_eq!(store.complete("a", &id, vec![old]).await.unwrap_err(), "InvalidPart");
    store.complete("a", &id, vec![new]).await.unwrap();
    assert_eq!(store.get("a").await, b"new");
}

#[tokio::test]
async fn an_upload_id_belongs_to_its_bucket_and_its_key() {
    let store = TestStore::start().await;
    store.s3.create_bucket().bucket("other").send().await.unwrap();
    let id = store.create("a").await;
    let part = store.part("a", &id, 1, "x").await;
    for (bucket, key, id) in
        [(BUCKET, "b", id.as_str()), ("other", "a", &id), (BUCKET, "a", "none"), (BUCKET, "a", "../x")]
    {
        let list = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(part.clone()).build();
        let s3 = &store.s3;
        let answers = [
            s3.upload_part().bucket(bucket).key(key).upload_id(id).part_number(1).send().await.map(drop).map_err(code),
            s3.list_parts().bucket(bucket).key(key).upload_id(id).send().await.map(drop).map_err(code),
            s3.abort_multipart_upload().bucket(bucket).key(key).upload_id(id).send().await.map(drop).map_err(code),
            s3.complete_multipart_upload()
                .bucket(bucket)
                .key(key)
                .upload_id(id)
                .multipart_upload(list)
                .send()
                .await
                .map(drop)
                .map_err(code),
        ];
        for answer in answers {
            assert_eq!(answer.unwrap_err(), "NoSuchUpload");
        }
    }
    store.complete("a", &id, vec![part]).await.unwrap();
}

#[tokio::test]
async fn part_numbers_lie_between_1_and_10000() {
    let store = TestStore::start().await;
    let id = store.create("a").await;
    for number in [0, -1, 10_001] {
        let sent = store.s3.upload_part().bucket(BUCKET).key("a").upload_id(&id).part_number(number).send().await;
        assert_eq!(sent.map_err(code).unwrap_err(), "InvalidArgument", "{number}");
    }
    let last = store.part("a", &id, 10_000, "x").await;
    store.complete("a", &id, vec![last]).await.unwrap();
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let store = TestStore::start().await;
    let id = store.create("a").await;
    let part = store.part("a", &id, 1, "x").await;
    let abort = || store.s3.abort_multipart_upload().bucket(BUCKET).key("a").upload_id(&id);
    abort().send().await.unwrap();
    assert_eq!(store.blobs(0).await, 0);
    assert_eq!(abort().send().await.map_err(code).unwrap_err(), "NoSuchUpload");
    assert_eq!(store.complete("a", &id, vec![part]).await.unwrap_err(), "NoSuchUpload");
}

#[tokio::test]
async fn completing_again_answers_again() {
    let mut store = TestStore::start().await;
    let id = store.create("a").await;
    let parts = vec![store.part("a", &id, 1, "x").await];
    let first = store.complete("a", &id, parts.clone()).await.unwrap();
    assert_eq!(store.complete("a", &id, parts.clone()).await.unwrap(), first);
    store.restart().await;
    assert_eq!(store.complete("a", &id, parts.clone()).await.unwrap(), first);
    // A call that names other parts is not a repetition, and the upload accepts no other call.
    let other = vec![named(1, "\"d41d8cd98f00b204e9800998ecf8427e\"")];
    assert_eq!(store.complete("a", &id, other).await.unwrap_err(), "NoSuchUpload");
    let s3 = &store.s3;
    let sent = s3.upload_part().bucket(BUCKET).key("a").upload_id(&id).part_number(1).send().await;
    assert_eq!(sent.map_err(code).unwrap_err(), "NoSuchUpload");
    let listed = s3.list_parts().bucket(BUCKET).key("a").upload_id(&id).send().await;
    assert_eq!(listed.map_err(code).unwrap_err(), "NoSuchUpload");
    let aborted = s3.abort_multipart_upload().bucket(BUCKET).key("a").upload_id(&id).send().await;
    assert_eq!(aborted.map_err(code).unwrap_err(), "NoSuchUpload");
    assert!(s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().is_empty());
    assert_eq!(store.get("a").await, b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_parts_become_an_object() {
    const PARTS: i32 = 10_000;
    let store = Arc::new(TestStore::start().await);
    // All parts but the last must be large, so they share the bytes of one object.
    let body = noise(1, PART);
    store.put("source", body.clone()).await;
    let id = store.create("huge").await;
    let (first, last) = (0..PARTS - 1, store.part("huge", &id, PARTS, "end").await);
    let senders: Vec<_> = (0..8)
        .map(|lane| {
            let (store, id) = (Arc::clone(&store), id.clone());
            let numbers: Vec<_> = first.clone().filter(|n| n % 8 == lane).map(|n| n + 1).collect();
            tokio::spawn(async move {
                for number in numbers {
                    let copy = store.s3.upload_part_copy().bucket(BUCKET).key("huge").upload_id(&id);
                    copy.part_number(number).copy_source(format!("{BUCKET}/source")).send().await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let (mut parts, mut marker) = (Vec::new(), None);
    loop {
        let list = store.s3.list_parts().bucket(BUCKET).key("huge").upload_id(&id);
        let page = list.set_part_number_marker(marker).send().await.unwrap();
        parts.extend(page.parts().iter().map(|part| named(part.part_number().unwrap(), part.e_tag().unwrap())));
        marker = page.next_part_number_marker().map(str::to_owned);
        if page.is_truncated() != Some(true) {
            break;
        }
        assert_eq!(page.parts().len(), 1000);
    }
    let numbers: Vec<_> = parts.iter().map(|part| part.part_number().unwrap()).collect();
    assert_eq!(numbers, (1..=PARTS).collect::<Vec<_>>());
    assert_eq!(parts.last().unwrap().e_tag(), last.e_tag());
    let begun = std::time::Instant::now();
    let etag = store.complete("huge", &id, parts).await.unwrap();
    println!("10,000 parts completed in {:?}", begun.elapsed());
    assert!(etag.ends_with("-10000\""));
    let size = (PARTS as usize - 1) * PART + 3;
    let tail = store.s3.get_object().bucket(BUCKET).key("huge").range("bytes=-5").send().await.unwrap();
    assert_eq!(tail.content_range().unwrap(), format!("bytes {}-{}/{size}", size - 5, size - 1));
    assert_eq!(tail.body.collect().await.unwrap().to_vec(), [&body[PART - 2..], b"end"].concat());
    store.s3.delete_object().bucket(BUCKET).key("huge").send().await.unwrap();
    assert_eq!(store.get("source").await, body);
}
