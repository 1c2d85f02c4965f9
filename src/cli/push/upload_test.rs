#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const HELLO: &str = "5d41402abc4b2a76b9719d911017c592";
const OTHER: &str = "7d793037a0760186574b0282f2f435e7";

fn asset(size: u64, etag: Option<&str>, sha256: Option<&str>) -> Asset {
    let shown = json!({
        "asset_id": "a", "file_size": size, "etag": etag, "checksum_sha256": sha256, "checksum_verified": true,
    });
    Asset { facts: serde_json::from_value(shown.clone()).unwrap(), shown }
}

fn file(size: u64) -> LocalFile {
    LocalFile { path: "hello".into(), name: "hello".into(), size, modified: std::time::SystemTime::UNIX_EPOCH }
}

#[test]
fn an_asset_of_another_size_sum_or_checksum_is_not_the_file() {
    let etag = || Proof::Etag(HELLO.to_owned());
    assert!(verify(&asset(4, None, None), &file(5), None, &Proof::None).is_err());
    assert!(verify(&asset(5, None, Some("ab")), &file(5), Some("cd"), &Proof::Sha256).is_err());
    assert!(verify(&asset(5, Some(OTHER), None), &file(5), None, &etag()).is_err());
}

#[test]
fn what_was_compared_is_what_is_claimed() {
    let etag = || Proof::Etag(format!("{HELLO}-2"));
    let claim = |etag: Option<&str>, proof| verify(&asset(5, etag, Some("AB")), &file(5), Some("ab"), &proof).unwrap();
    assert_eq!(claim(Some("x"), Proof::Sha256), Verified::Sha256);
    let mut unverified = asset(5, Some("x"), Some("AB"));
    unverified.facts.checksum_verified = false;
    let claimed = verify(&unverified, &file(5), Some("ab"), &Proof::Sha256).unwrap();
    assert_eq!(claimed, Verified::Size, "the store has compared nothing");
    assert_eq!(claim(Some(&format!("{HELLO}-2")), etag()), Verified::Md5);
    // Another form of ETag is no proof, and no disproof.
    for other in [None, Some("v2-opaque"), Some(OTHER), Some(&format!("{OTHER}-3"))] {
        assert_eq!(claim(other, etag()), Verified::Size, "{other:?}");
    }
    assert_eq!(claim(Some(OTHER), Proof::None), Verified::Size);
}

#[test]
fn garbled_is_an_md5_that_is_another() {
    let receipt = |etag: Option<&str>, md5: Option<&str>| Receipt {
        etag: etag.map(str::to_owned),
        md5: md5.map(|md5| plan::md5_form(md5).unwrap()),
    };
    assert!(is_garbled(&receipt(Some(OTHER), Some(HELLO))));
    assert!(!is_garbled(&receipt(Some(HELLO), Some(HELLO))));
    assert!(!is_garbled(&receipt(Some("opaque"), Some(HELLO))));
    assert!(!is_garbled(&receipt(Some(OTHER), None)), "a store that hides its MD5s");
    assert!(!is_garbled(&receipt(None, Some(HELLO))));
}
