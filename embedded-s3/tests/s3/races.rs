//! Concurrent requests: one winner, one version, nothing left behind.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;

use crate::kit::*;

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_conditional_writes_one_wins() {
    let store = Arc::new(TestStore::start().await);
    for round in 0..5 {
        let key = format!("race-{round}");
        let racers: Vec<_> = (0..8_u8)
            .map(|racer| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move {
                    let body = ByteStream::from(vec![racer; 100_000]);
                    let put = store.s3.put_object().bucket(BUCKET).key(key).if_none_match("*").body(body);
                    put.send().await.map(|_| racer).map_err(code)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(racer) => winners.push(racer),
                Err(code) => assert_eq!(code, "PreconditionFailed"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(store.get(&key).await, vec![winners[0]; 100_000]);
    }
    assert_eq!(store.blobs(5).await, 5, "the losers leave nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_sees_one_version_to_its_end() {
    let store = Arc::new(TestStore::start().await);
    let (old, new) = (vec![b'o'; 24 * MIB], vec![b'n'; 24 * MIB]);
    store.put("a", old.clone()).await;
    // Too large for the buffers in between: the object is replaced while the reader is in the middle of it.
    let mut reading = store.s3.get_object().bucket(BUCKET).key("a").send().await.unwrap();
    let first = reading.body.next().await.unwrap().unwrap();
    store.put("a", new.clone()).await;
    assert_eq!(store.blobs(2).await, 2, "the old bytes stay while they are read");
    assert_eq!(store.get("a").await, new);
    let rest = reading.body.collect().await.unwrap().to_vec();
    assert!([first.to_vec(), rest].concat() == old, "a mix of versions");
    assert_eq!(store.blobs(1).await, 1, "the old bytes are removed after the last reader");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_of_one_key_never_see_a_mix() {
    let store = Arc::new(TestStore::start().await);
    store.put("a", vec![0; MIB]).await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for version in 1..=30_u8 {
                store.put("a", vec![version; MIB]).await;
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() {
        let body = store.get("a").await;
        assert_eq!(body.len(), MIB);
        assert!(body.iter().all(|byte| *byte == body[0]), "a mix of versions");
        assert!(body[0] >= seen, "an older version after a newer one");
        seen = body[0];
    }
    writer.await.unwrap();
    assert_eq!(store.blobs(1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_one_of_the_version_that_is_read() {
    const PART: usize = 5 * MIB;
    let store = Arc::new(TestStore::start().await);
    store.put("source", vec![0; PART]).await;
    let make = async |store: &TestStore| {
        let id = store.create("a").await;
        let copy = store.s3.upload_part_copy().bucket(BUCKET).key("a").upload_id(&id).part_number(1);
        let copied = copy.copy_source(format!("{BUCKET}/source")).send().await.unwrap();
        let etag = copied.copy_part_result().unwrap().e_tag().unwrap();
        let first = aws_sdk_s3::types::CompletedPart::builder().part_number(1).e_tag(etag).build();
        let parts = vec![first, store.part("a", &id, 2, "tail").await];
        store.complete("a", &id, parts).await.unwrap();
    };
    make(&store).await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..100 {
                make(&store).await;
            }
        })
    };
    let readers = (0..4).map(|_| {
        let (store, over) = (Arc::clone(&store), writer.abort_handle());
        tokio::spawn(async move {
            while !over.is_finished() {
                let first = store.s3.head_object().bucket(BUCKET).key("a").part_number(1).send().await.unwrap();
                assert_eq!(first.content_length(), Some(PART as i64), "the whole object instead of a part");
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_conditional_completes_one_wins() {
    let store = Arc::new(TestStore::start().await);
    let mut racers = Vec::new();
    for racer in 0..6 {
        let id = store.create("a").await;
        let part = store.part("a", &id, 1, format!("racer {racer}")).await;
        let list = aws_sdk_s3::types::CompletedMultipartUpload::builder().parts(part).build();
        let complete = store.s3.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(id);
        racers.push(tokio::spawn(complete.if_none_match("*").multipart_upload(list).send()));
    }
    let mut winners = 0;
    for racer in racers {
        match racer.await.unwrap().map_err(code) {
            Ok(_) => winners += 1,
            Err(code) => assert_eq!(code, "PreconditionFailed"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(store.s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_races_with_itself_and_with_abort() {
    let store = Arc::new(TestStore::start().await);
    for round in 0..10 {
        let key = format!("k{round}");
        let id = store.create(&key).await;
        let parts = vec![store.part(&key, &id, 1, "x").await];
        let twice = (0..2).map(|_| {
            let (store, key, id, parts) = (Arc::clone(&store), key.clone(), id.clone(), parts.clone());
            tokio::spawn(async move { store.complete(&key, &id, parts).await })
        });
        let twice: Vec<_> = twice.collect();
        let abort = store.s3.abort_multipart_upload().bucket(BUCKET).key(&key).upload_id(&id).send().await;
        let mut completed = Vec::new();
        for one in twice {
            completed.push(one.await.unwrap().is_ok());
        }
        let there = store.s3.head_object().bucket(BUCKET).key(&key).send().await.is_ok();
        assert_eq!(completed, [there, there], "both calls agree with the outcome");
        assert_eq!(abort.is_ok(), !there, "and so does the abort");
    }
}
