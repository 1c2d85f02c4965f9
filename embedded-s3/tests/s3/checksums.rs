//! Content-MD5 and x-amz-checksum-*, in headers and trailers, on objects and on parts.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use s3s::crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};

use crate::kit::*;
use crate::sign::signed;

const BODY: &[u8] = b"every byte counts";

fn base64<C: Checksum>(data: &[u8]) -> String {
    BASE64_STANDARD.encode(C::checksum(data))
}

fn values(data: &[u8]) -> [(&'static str, String); 5] {
    [
        ("x-amz-checksum-crc32", base64::<Crc32>(data)),
        ("x-amz-checksum-crc32c", base64::<Crc32c>(data)),
        ("x-amz-checksum-crc64nvme", base64::<Crc64Nvme>(data)),
        ("x-amz-checksum-sha1", base64::<Sha1>(data)),
        ("x-amz-checksum-sha256", base64::<Sha256>(data)),
    ]
}

#[tokio::test]
async fn a_body_that_is_not_what_was_announced_replaces_nothing() {
    let store = TestStore::start().await;
    store.put("a", "before").await;
    let url = store.url(&format!("/{BUCKET}/a"));
    let put =
        |headers: &[(&str, &str)]| signed(&store.http, "PUT", &url, "UNSIGNED-PAYLOAD", headers).body(BODY).send();

    let wrong_md5 = base64::<Md5>(b"other");
    let mut wrong = vec![("content-md5", wrong_md5)];
    wrong.extend(values(b"other"));
    for (name, value) in &wrong {
        let answer = code_of(put(&[(name, value)]).await.unwrap()).await;
        assert_eq!(answer, (400, "BadDigest".into()), "{name}");
    }
    let answer = code_of(put(&[("content-md5", "not base64")]).await.unwrap()).await;
    assert_eq!(answer, (400, "InvalidDigest".into()));
    let answer = code_of(put(&[("x-amz-checksum-crc32", "AAAA")]).await.unwrap()).await;
    assert_eq!(answer, (400, "InvalidRequest".into()), "three bytes are no CRC-32");
    let [one, two, ..] = values(BODY);
    let answer = code_of(put(&[(one.0, &one.1), (two.0, &two.1)]).await.unwrap()).await;
    assert_eq!(answer, (400, "InvalidRequest".into()), "one checksum at a time");
    let hash = hex::encode(Sha256::checksum(b"other"));
    let answer = signed(&store.http, "PUT", &url, &hash, &[]).body(BODY).send().await.unwrap();
    assert_eq!(code_of(answer).await, (400, "XAmzContentSHA256Mismatch".into()));
    assert_eq!(store.get("a").await, b"before");
    assert_eq!(store.blobs(1).await, 1);

    let mut right = vec![("content-md5", base64::<Md5>(BODY))];
    right.extend(values(BODY));
    for (name, value) in &right {
        let answer = put(&[(name, value)]).await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        if *name != "content-md5" {
            assert_eq!(answer.headers()[*name], value.as_str());
        }
        assert_eq!(store.get("a").await, BODY);
    }
}

#[tokio::test]
async fn trailers_are_checked() {
    let store = TestStore::start().await;
    let url = store.url(&format!("/{BUCKET}/a"));
    let length = BODY.len().to_string();
    let put = |name: &'static str, trailer: String| {
        let headers = [
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", length.as_str()),
            ("x-amz-trailer", name),
        ];
        let text = std::str::from_utf8(BODY).unwrap();
        let body = format!("{:x}\r\n{text}\r\n0\r\n{trailer}\r\n\r\n", BODY.len());
        signed(&store.http, "PUT", &url, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", &headers).body(body).send()
    };
    for ((name, right), (_, wrong)) in values(BODY).into_iter().zip(values(b"other")) {
        let answer = put(name, format!("{name}:{wrong}")).await.unwrap();
        assert_eq!(code_of(answer).await, (400, "BadDigest".into()), "{name}");
        let answer = put(name, format!("{name}:{right}")).await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        let head = store.s3.head_object().bucket(BUCKET).key("a").checksum_mode(ChecksumMode::Enabled);
        let head = head.presigned(minutes(5)).await.unwrap();
        let answer = store.send(&head, "").await;
        assert_eq!(answer.headers()[name], right.as_str());
        assert!(!answer.headers().contains_key("content-encoding"), "aws-chunked is not kept");
    }
    assert_eq!(store.get("a").await, BODY);
}

#[tokio::test]
async fn the_sdk_checks_what_it_reads() {
    let store = TestStore::start().await;
    for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Sha256] {
        let put = store.s3.put_object().bucket(BUCKET).key("a").checksum_algorithm(algorithm.clone());
        put.body(ByteStream::from_static(BODY)).send().await.unwrap();
        let get = || store.s3.get_object().bucket(BUCKET).key("a").checksum_mode(ChecksumMode::Enabled);
        let got = get().send().await.unwrap();
        assert!(got.checksum_crc32().or(got.checksum_crc64_nvme()).or(got.checksum_sha256()).is_some(), "{algorithm}");
        assert_eq!(got.checksum_type(), Some(&ChecksumType::FullObject));
        assert_eq!(got.body.collect().await.unwrap().to_vec(), BODY);
        let part = get().range("bytes=0-3").send().await.unwrap();
        assert_eq!(part.checksum_sha256(), None, "the checksum of the whole does not apply to a part");
        assert_eq!(part.body.collect().await.unwrap().to_vec(), &BODY[..4]);
    }
}

struct Case {
    algorithm: ChecksumAlgorithm,
    kind: ChecksumType,
    header: &'static str,
    whole: String,
}

#[tokio::test]
async fn the_checksum_of_an_upload_follows_from_its_parts() {
    let store = TestStore::start().await;
    let (one, two) = (noise(1, PART), noise(2, 1000));
    let all = [one.clone(), two.clone()].concat();
    let composite = base64::<Sha256>(&[Sha256::checksum(&one), Sha256::checksum(&two)].concat());
    let composite_crc = base64::<Crc32>(&[Crc32::checksum(&one), Crc32::checksum(&two)].concat());
    let case = |algorithm, kind, header, whole| Case { algorithm, kind, header, whole };
    let cases = [
        case(ChecksumAlgorithm::Sha256, ChecksumType::Composite, "x-amz-checksum-sha256", format!("{composite}-2")),
        case(ChecksumAlgorithm::Crc32, ChecksumType::Composite, "x-amz-checksum-crc32", format!("{composite_crc}-2")),
        case(ChecksumAlgorithm::Crc32, ChecksumType::FullObject, "x-amz-checksum-crc32", base64::<Crc32>(&all)),
        case(ChecksumAlgorithm::Crc32C, ChecksumType::FullObject, "x-amz-checksum-crc32c", base64::<Crc32c>(&all)),
        case(
            ChecksumAlgorithm::Crc64Nvme,
            ChecksumType::FullObject,
            "x-amz-checksum-crc64nvme",
            base64::<Crc64Nvme>(&all),
        ),
    ];
    for Case { algorithm, kind, header, whole } in cases {
        let created = store.s3.create_multipart_upload().bucket(BUCKET).key("a").checksum_algorithm(algorithm.clone());
        let id = created.checksum_type(kind.clone()).send().await.unwrap().upload_id.unwrap();
        // A part that is sent without a checksum is hashed, too.
        let first = store.part("a", &id, 1, one.clone()).await;
        let sent = store.s3.upload_part().bucket(BUCKET).key("a").upload_id(&id).part_number(2);
        let sent = sent.checksum_algorithm(algorithm.clone()).body(two.clone().into()).send().await.unwrap();
        let second = CompletedPart::builder()
            .part_number(2)
            .e_tag(sent.e_tag().unwrap())
            .set_checksum_sha256(sent.checksum_sha256.clone())
            .set_checksum_crc32(sent.checksum_crc32.clone())
            .build();
        let wrong = store.s3.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(&id);
        let lying = CompletedPart::builder().part_number(2).e_tag(sent.e_tag().unwrap()).checksum_sha1("AAAA").build();
        let list = CompletedMultipartUpload::builder().parts(first.clone()).parts(lying).build();
        let refused = wrong.multipart_upload(list).send().await;
        assert_eq!(refused.map_err(code).unwrap_err(), "InvalidPart");

        store.complete("a", &id, vec![first, second]).await.unwrap();
        let head = store.s3.head_object().bucket(BUCKET).key("a").checksum_mode(ChecksumMode::Enabled);
        let answer = store.send(&head.presigned(minutes(5)).await.unwrap(), "").await;
        assert_eq!(answer.headers()[header], whole.as_str(), "{algorithm} {kind}");
        assert_eq!(answer.headers()["x-amz-checksum-type"], kind.as_str());
        let got = store.s3.get_object().bucket(BUCKET).key("a").checksum_mode(ChecksumMode::Enabled).send().await;
        assert_eq!(got.unwrap().body.collect().await.unwrap().to_vec(), all);
    }
    let refused = store.s3.create_multipart_upload().bucket(BUCKET).key("a");
    let refused = refused.checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_type(ChecksumType::FullObject);
    assert_eq!(refused.send().await.map_err(code).unwrap_err(), "InvalidRequest");
}

#[tokio::test]
async fn a_complete_can_insist_on_the_checksum() {
    let store = TestStore::start().await;
    let created = store.s3.create_multipart_upload().bucket(BUCKET).key("a");
    let created = created.checksum_algorithm(ChecksumAlgorithm::Crc32).checksum_type(ChecksumType::FullObject);
    let id = created.send().await.unwrap().upload_id.unwrap();
    let part = store.part("a", &id, 1, BODY).await;
    let list = CompletedMultipartUpload::builder().parts(part).build();
    let complete = |crc: String| {
        let complete = store.s3.complete_multipart_upload().bucket(BUCKET).key("a").upload_id(&id);
        complete.checksum_type(ChecksumType::FullObject).checksum_crc32(crc).multipart_upload(list.clone()).send()
    };
    assert_eq!(complete(base64::<Crc32>(b"other")).await.map_err(code).unwrap_err(), "BadDigest");
    complete(base64::<Crc32>(BODY)).await.unwrap();
    // A copy keeps the checksum, or gets the one it asks for.
    let copy = || store.s3.copy_object().bucket(BUCKET).copy_source(format!("{BUCKET}/a"));
    let same = copy().key("b").send().await.unwrap();
    assert_eq!(same.copy_object_result().unwrap().checksum_crc32(), Some(base64::<Crc32>(BODY).as_str()));
    let other = copy().key("b").checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    assert_eq!(other.copy_object_result().unwrap().checksum_sha256(), Some(base64::<Sha256>(BODY).as_str()));
}
