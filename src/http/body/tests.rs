#![allow(clippy::unwrap_used)]

use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use validator::ValidationError;

use super::*;
use crate::http::rules;
use crate::input::{FileName, MediaType, Reference, Sha256};

/// The shape of a request, as `POST /app/uploads/initiate` has it.
#[derive(Debug, Default, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct File {
    #[validate(required, custom(function = "rules::text::<FileName>"))]
    file_name: Option<String>,
    #[validate(required, range(min = 1))]
    file_size: Option<u64>,
    #[validate(custom(function = "rules::text::<MediaType>"))]
    mime_type: Option<String>,
    brand_id: Option<Uuid>,
    #[validate(custom(function = "rules::text::<Reference>"))]
    client_reference: Option<String>,
    #[validate(custom(function = "rules::text::<Sha256>"))]
    checksum_sha256: Option<String>,
    #[validate(custom(function = "rules::metadata"))]
    metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct Batch {
    #[validate(required, length(min = 1, max = 1000), nested)]
    files: Option<Vec<File>>,
}

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[validate(schema(function = "one_way"))]
struct Parts {
    part_numbers: Option<Vec<u32>>,
    #[validate(length(max = 1000000))]
    ids: Option<Vec<Uuid>>,
    from: Option<u32>,
}

fn one_way(parts: &Parts) -> Result<(), ValidationError> {
    if parts.part_numbers.is_some() == parts.from.is_some() {
        return Err(ValidationError::new("required").with_message("part_numbers, or from and to".into()));
    }
    Ok(())
}

fn refusal<T: DeserializeOwned + Validate>(bytes: &[u8]) -> Value {
    let problem = parse::<T>(bytes).err().expect("the body should have been refused");
    serde_json::from_slice(&problem.body(None)).unwrap()
}

fn wrong<T: DeserializeOwned + Validate>(document: Value) -> Vec<(String, String)> {
    let problem = refusal::<T>(document.to_string().as_bytes());
    assert_eq!(problem["code"], "validation-failed", "{problem}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    problem["errors"].as_array().unwrap().iter().map(|error| (text(&error["pointer"]), text(&error["code"]))).collect()
}

#[track_caller]
fn assert_wrong<T: DeserializeOwned + Validate>(document: Value, expected: &[(&str, &str)]) {
    let mut found = wrong::<T>(document);
    found.sort();
    let mut expected: Vec<_> = expected.iter().map(|(p, c)| ((*p).to_owned(), (*c).to_owned())).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_right_body_is_read() {
    let file: File = parse(
        r#"{"file_name": "مرحبا 😀.mov", "file_size": 5497558138880, "mime_type": null, "metadata": {"a": {"b": [1]}}}"#
            .as_bytes(),
    )
    .unwrap();
    assert_eq!(file.file_name.as_deref(), Some("مرحبا 😀.mov"));
    assert_eq!((file.file_size, file.mime_type), (Some(5 << 40), None));
    assert_eq!(file.metadata.unwrap()["a"]["b"][0], 1);
}

#[test]
fn nothing_is_an_empty_object() {
    assert!(parse::<Nothing>(b"").is_ok() && parse::<Nothing>(b" {} ").is_ok());
    assert_wrong::<Nothing>(json!({"force": true}), &[("/force", "unknown-field")]);
    assert_wrong::<File>(json!({}), &[("/file_name", "required"), ("/file_size", "required")]);
    assert_eq!(refusal::<File>(b"")["code"], "validation-failed");
}

#[test]
fn every_wrong_field_is_named_at_once() {
    assert_wrong::<File>(
        json!({
            "file_name": 7, "file_size": -1, "mime_type": "image", "brand_id": "main", "client_reference": "a\u{0}b",
            "checksum_sha256": ["x"], "metadata": "none", "colour": "red", "a/b~c": 1, "": 2,
        }),
        &[
            ("/file_name", "wrong-type"),
            ("/file_size", "out-of-range"),
            ("/mime_type", "invalid-format"),
            ("/brand_id", "invalid-format"),
            ("/client_reference", "invalid-character"),
            ("/checksum_sha256", "wrong-type"),
            ("/metadata", "wrong-type"),
            ("/colour", "unknown-field"),
            ("/a~1b~0c", "unknown-field"),
            ("/", "unknown-field"),
        ],
    );
    assert_wrong::<File>(json!([1]), &[("", "wrong-type")]);
    assert_wrong::<File>(
        json!({"file_name": "", "file_size": 0}),
        &[("/file_name", "too-short"), ("/file_size", "out-of-range")],
    );
}

#[test]
fn numbers_are_whole_and_within_their_type() {
    for (size, code) in [
        (json!(1.5), "wrong-type"),
        (json!("1"), "wrong-type"),
        (json!(true), "wrong-type"),
        (json!(-1), "out-of-range"),
        (json!(1e30), "out-of-range"),
    ] {
        assert_wrong::<File>(json!({"file_name": "a", "file_size": size}), &[("/file_size", code)]);
    }
    let whole: File = parse(br#"{"file_name": "a", "file_size": 7.0}"#).unwrap();
    assert_eq!(whole.file_size, Some(7));
    let big = refusal::<File>(br#"{"file_name": "a", "file_size": 18446744073709551616}"#);
    assert_eq!(big["errors"][0]["code"], "out-of-range");
}

#[test]
fn elements_are_named_by_their_place() {
    let good = json!({"file_name": "a", "file_size": 1});
    assert_wrong::<Batch>(
        json!({"files": [good, "x", {"file_name": "a/b", "file_size": "1", "brand_id": 5}, {"file_sise": 1}, null]}),
        &[
            ("/files/1", "wrong-type"),
            ("/files/2/file_name", "invalid-character"),
            ("/files/2/file_size", "wrong-type"),
            ("/files/2/brand_id", "wrong-type"),
            ("/files/3/file_sise", "unknown-field"),
            ("/files/3/file_name", "required"),
            ("/files/3/file_size", "required"),
            ("/files/4", "wrong-type"),
        ],
    );
    assert_wrong::<Batch>(json!({"files": []}), &[("/files", "too-short")]);
    assert_wrong::<Batch>(json!({"files": vec![good; 1001]}), &[("/files", "too-long")]);
    assert_wrong::<Batch>(json!({"files": {}}), &[("/files", "wrong-type")]);
}

#[test]
fn rules_over_several_fields_point_at_the_whole() {
    assert_wrong::<Parts>(json!({}), &[("", "required")]);
    assert_wrong::<Parts>(
        json!({"part_numbers": [1, "x", -1, 2]}),
        &[("/part_numbers/1", "wrong-type"), ("/part_numbers/2", "out-of-range")],
    );
    // Elements that their own type refuses: each costs a pass, and all are named.
    assert_wrong::<Parts>(
        json!({"from": 1, "ids": ["x", 5, "y"]}),
        &[("/ids/0", "invalid-format"), ("/ids/1", "wrong-type"), ("/ids/2", "invalid-format")],
    );
}

#[test]
fn what_is_not_json_is_malformed() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for bytes in [
        b"{".to_vec(),
        b"{} x".to_vec(),
        b"{'a': 1}".to_vec(),
        b"{\"file_name\": \"\xff\"}".to_vec(),
        br#"{"file_name": "\ud800"}"#.to_vec(),
        br#"{"file_name": "a", "file_name": "b"}"#.to_vec(),
        br#"{"file_name": "a", "file_size": 1, "metadata": {"a": 1, "a": 2}}"#.to_vec(),
        br#"{"unknown": {"a": 1, "a": 2}}"#.to_vec(),
        b"\xef\xbb\xbf\xef\xbb\xbf{}".to_vec(),
        br#"{"file_size": 1e999}"#.to_vec(),
        deep(33).into_bytes(),
        deep(1_000_000).into_bytes(),
        vec![b'['; 1_000_000],
        br#"{"a":"#.repeat(100_000),
    ] {
        assert_eq!(refusal::<File>(&bytes)["code"], "malformed-body", "{:?}", bytes.get(..40));
    }
    assert_eq!(refusal::<File>(deep(32).as_bytes())["code"], "validation-failed");
    assert!(parse::<File>(b"\xef\xbb\xbf{\"file_name\": \"a\", \"file_size\": 1}").is_ok());
    // Brackets within strings do not count as depth, and an escaped quote does not end a string.
    let name = format!(r#"{{"file_size": 1, "file_name": "\"{}"}}"#, "[".repeat(40));
    assert!(parse::<File>(name.as_bytes()).is_ok());
}

#[test]
fn a_flood_of_errors_is_cut_and_costs_little() {
    let mut flood = String::from("{");
    for i in 0..300_000 {
        flood.push_str(&format!(r#""unknown{i}":{i},"#));
    }
    flood.push_str(&format!(r#""{}":1}}"#, "k".repeat(1_000_000)));
    let started = std::time::Instant::now();
    let problem = refusal::<File>(flood.as_bytes());
    let errors = problem["errors"].as_array().unwrap();
    assert!((1_000..=1_002).contains(&errors.len()), "{}", errors.len());
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());

    let long = refusal::<File>(format!(r#"{{"{}":1}}"#, "k".repeat(100_000)).as_bytes());
    assert!(long.to_string().len() < 1_000);

    // Values that their own type refuses cost the most.
    let ids = json!({"from": 1, "ids": vec!["x"; 100_000]}).to_string();
    let started = std::time::Instant::now();
    assert_eq!(refusal::<Parts>(ids.as_bytes())["errors"].as_array().unwrap().len(), 16);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn a_list_is_no_object() {
    assert_wrong::<Nothing>(json!([]), &[("", "wrong-type")]);
    assert_wrong::<Batch>(json!({"files": [["a", 1]]}), &[("/files/0", "wrong-type")]);
}
