//! Buckets, the store's folder, and which process may open it.

use std::time::Duration;

use embedded_s3::{Config, Error, Limits};

use crate::kit::*;

#[tokio::test]
async fn a_bucket_lives_and_dies() {
    let mut store = TestStore::start().await;
    assert_eq!(store.s3.head_bucket().bucket("films").send().await.map_err(code).unwrap_err(), "NotFound");
    store.s3.create_bucket().bucket("films").send().await.unwrap();
    let again = store.s3.create_bucket().bucket("films").send().await;
    assert_eq!(again.map_err(code).unwrap_err(), "BucketAlreadyOwnedByYou");
    store.restart().await;
    store.s3.head_bucket().bucket("films").send().await.unwrap();
    let list = store.s3.list_buckets().send().await.unwrap();
    let names: Vec<_> = list.buckets().iter().map(|bucket| bucket.name().unwrap()).collect();
    assert_eq!(names, [BUCKET, "films"]);
    let location = store.s3.get_bucket_location().bucket("films").send().await.unwrap();
    assert_eq!(location.location_constraint().map(|region| region.as_str()).unwrap_or_default(), "");

    store.s3.put_object().bucket("films").key("a").send().await.unwrap();
    let delete = || store.s3.delete_bucket().bucket("films");
    assert_eq!(delete().send().await.map_err(code).unwrap_err(), "BucketNotEmpty");
    store.s3.delete_object().bucket("films").key("a").send().await.unwrap();
    let upload = store.s3.create_multipart_upload().bucket("films").key("b").send().await.unwrap();
    assert_eq!(delete().send().await.map_err(code).unwrap_err(), "BucketNotEmpty", "an upload is open");
    let abort = store.s3.abort_multipart_upload().bucket("films").key("b").upload_id(upload.upload_id().unwrap());
    abort.send().await.unwrap();
    delete().send().await.unwrap();
    assert_eq!(delete().send().await.map_err(code).unwrap_err(), "NoSuchBucket");
}

#[tokio::test]
async fn without_a_bucket_nothing_goes() {
    let store = TestStore::start().await;
    let s3 = &store.s3;
    let none = "no-such-bucket";
    let answers = [
        s3.put_object().bucket(none).key("a").send().await.map(drop).map_err(code),
        s3.get_object().bucket(none).key("a").send().await.map(drop).map_err(code),
        s3.delete_object().bucket(none).key("a").send().await.map(drop).map_err(code),
        s3.list_objects_v2().bucket(none).send().await.map(drop).map_err(code),
        s3.create_multipart_upload().bucket(none).key("a").send().await.map(drop).map_err(code),
        s3.upload_part().bucket(none).key("a").upload_id("x").part_number(1).send().await.map(drop).map_err(code),
        s3.list_parts().bucket(none).key("a").upload_id("x").send().await.map(drop).map_err(code),
        s3.list_multipart_uploads().bucket(none).send().await.map(drop).map_err(code),
        s3.abort_multipart_upload().bucket(none).key("a").upload_id("x").send().await.map(drop).map_err(code),
        s3.get_bucket_cors().bucket(none).send().await.map(drop).map_err(code),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap_err(), "NoSuchBucket", "call {n}");
    }
}

#[tokio::test]
async fn one_process_at_a_time() {
    let mut store = TestStore::start().await;
    let second = embedded_s3::start(config(store.dir.path(), Limits::default())).await;
    assert!(matches!(second, Err(Error::InUse(_))));
    store.stop(Duration::from_secs(1)).await;
    let third = embedded_s3::start(config(store.dir.path(), Limits::default())).await.unwrap();
    third.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn blobs_without_metadata_are_not_taken_for_litter() {
    let mut store = TestStore::start().await;
    store.put("a", "precious").await;
    store.stop(Duration::from_secs(1)).await;
    let metadata = store.dir.path().join("metadata.db");
    let aside = store.dir.path().join("aside");
    std::fs::rename(&metadata, &aside).unwrap();
    let refused = embedded_s3::start(config(store.dir.path(), Limits::default())).await;
    assert!(matches!(refused, Err(Error::MetadataLost(_))));
    assert!(!metadata.exists(), "nothing is created");
    std::fs::rename(&aside, &metadata).unwrap();
    assert_eq!(store.blobs(1).await, 1);
}

/// A full disk or an interrupted restore may leave such a file.
#[tokio::test]
async fn blobs_beside_empty_metadata_are_not_taken_for_litter() {
    let mut store = TestStore::start().await;
    store.put("a", "precious").await;
    store.stop(Duration::from_secs(1)).await;
    let metadata = store.dir.path().join("metadata.db");
    let kept = std::fs::read(&metadata).unwrap();
    // A database in WAL mode whose tables were never written: SQLite writes its first page for the mode alone.
    let elsewhere = tempfile::tempdir().unwrap();
    let bare = elsewhere.path().join("bare.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&bare).create_if_missing(true);
    let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    pool.close().await;
    let bare = std::fs::read(&bare).unwrap();
    assert!(!bare.is_empty());
    for empty in [Vec::new(), bare] {
        std::fs::write(&metadata, &empty).unwrap();
        let refused = embedded_s3::start(config(store.dir.path(), Limits::default())).await;
        assert!(matches!(refused, Err(Error::MetadataLost(_))), "{} bytes", empty.len());
        assert_eq!(std::fs::read(&metadata).unwrap(), empty, "nothing is created");
        assert_eq!(store.blobs(1).await, 1);
    }
    std::fs::write(&metadata, kept).unwrap();
    let server = embedded_s3::start(config(store.dir.path(), Limits::default())).await.unwrap();
    server.shutdown(Duration::from_secs(1)).await;
    assert_eq!(store.blobs(1).await, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn the_folder_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let server = embedded_s3::start(config(&root, Limits::default())).await.unwrap();
    assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    server.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_wrong_setting_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = config(dir.path(), Limits::default());
    let wrong = [
        Config { access_key_id: String::new(), ..good.clone() },
        Config { secret_access_key: String::new(), ..good.clone() },
        Config { buckets: vec!["Not_A_Bucket".into()], ..good.clone() },
        Config { root: "".into(), ..good.clone() },
    ];
    for config in wrong {
        assert!(matches!(embedded_s3::start(config).await, Err(Error::Config(_))));
    }
    assert!(!format!("{good:?}").contains(SECRET), "a secret in the log");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    assert!(matches!(embedded_s3::start(Config { listen, ..good }).await, Err(Error::Listen(..))));
}
