//! The results on standard output: a table for people, JSON lines for programs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::error::Error;

/// The outcome of one file.
#[derive(Debug)]
pub struct Outcome {
    pub path: PathBuf,
    /// `None` if the file could not be read.
    pub size: Option<u64>,
    pub session_id: Option<String>,
    /// Bytes that the store took in this run; a part that had to be sent twice counts once.
    pub sent_bytes: u64,
    pub sent_parts: u32,
    pub result: Result<Done, Error>,
}

#[derive(Debug)]
pub struct Done {
    /// As the server shows it.
    pub asset: Value,
    /// The asset existed before this run.
    pub already: bool,
    pub verified: Verified,
}

/// What was compared with the file in addition to the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The SHA-256, by the store when it received the bytes.
    Sha256,
    /// The ETag of the object, with the MD5 of the bytes read here.
    Md5,
    /// Nothing: the store's ETags are not MD5s, or an earlier run completed the upload.
    Size,
}

#[derive(Debug)]
pub struct Summary<'a> {
    pub batch: &'a str,
    pub interrupted: bool,
    pub seconds: f64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    uploaded: usize,
    already: usize,
    failed: usize,
    sent_bytes: u64,
}

impl Outcome {
    /// The outcome of a file that never had a session.
    pub fn failed(path: PathBuf, size: Option<u64>, error: Error) -> Self {
        Self { path, size, session_id: None, sent_bytes: 0, sent_parts: 0, result: Err(error) }
    }

    fn word(&self) -> &'static str {
        match &self.result {
            Ok(done) if done.already => "already",
            Ok(_) => "uploaded",
            Err(_) => "failed",
        }
    }

    /// Returns the log line of a finished file.
    pub fn line(&self) -> String {
        format!("{:<8}  {}", self.word(), shown(&self.path))
    }

    fn to_json(&self) -> Value {
        let done = self.result.as_ref().ok();
        json!({
            "path": self.path.to_string_lossy(),
            "result": self.word(),
            "asset": done.map(|done| &done.asset),
            "verified": done.map(|done| done.verified.word()),
            "upload_session_id": self.session_id,
            "sent_bytes": self.sent_bytes,
            "sent_parts": self.sent_parts,
            "problem": self.result.as_ref().err().map(Error::to_json),
        })
    }
}

impl Verified {
    fn word(self) -> &'static str {
        match self {
            Verified::Sha256 => "sha256",
            Verified::Md5 => "md5",
            Verified::Size => "size",
        }
    }
}

/// Writes a line for each file, in the order of the arguments, and one with the summary.
pub fn write_json(out: &mut dyn Write, outcomes: &[Outcome], summary: &Summary<'_>) -> io::Result<()> {
    for outcome in outcomes {
        writeln!(out, "{}", outcome.to_json())?;
    }
    let counts = Counts::of(outcomes);
    let summary = json!({ "summary": {
        "files": outcomes.len(),
        "uploaded": counts.uploaded,
        "already": counts.already,
        "failed": counts.failed,
        "sent_bytes": counts.sent_bytes,
        "batch_reference": summary.batch,
        "interrupted": summary.interrupted,
        "seconds": summary.seconds,
    }});
    writeln!(out, "{summary}")
}

pub fn write_table(out: &mut dyn Write, outcomes: &[Outcome]) -> io::Result<()> {
    writeln!(out, "{:<8}  {:>10}  {:<8}  {:<36}  FILE", "RESULT", "SIZE", "VERIFIED", "ASSET")?;
    for outcome in outcomes {
        let size = outcome.size.map_or_else(|| "-".into(), |size| HumanBytes(size).to_string());
        let done = outcome.result.as_ref().ok();
        let asset = done.and_then(|done| done.asset["asset_id"].as_str()).unwrap_or("-");
        let verified = done.map_or("-", |done| done.verified.word());
        let path = shown(&outcome.path);
        writeln!(out, "{:<8}  {size:>10}  {verified:<8}  {:<36}  {path}", outcome.word(), plain(asset))?;
    }
    Ok(())
}

/// Returns the summary for people, in a sentence.
pub fn sentence(outcomes: &[Outcome], summary: &Summary<'_>) -> String {
    let Counts { uploaded, already, failed, sent_bytes } = Counts::of(outcomes);
    let (sent, seconds, batch) = (HumanBytes(sent_bytes), summary.seconds, plain(summary.batch));
    format!(
        "{uploaded} uploaded, {already} there already, {failed} failed; {sent} sent in {seconds:.1} s; batch {batch}"
    )
}

impl Counts {
    fn of(outcomes: &[Outcome]) -> Self {
        let count = |word| outcomes.iter().filter(|outcome| outcome.word() == word).count();
        Self {
            uploaded: count("uploaded"),
            already: count("already"),
            failed: count("failed"),
            sent_bytes: outcomes.iter().map(|outcome| outcome.sent_bytes).sum(),
        }
    }
}

/// Makes foreign text safe for a terminal: replaces control characters, which may move the cursor.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub fn shown(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn outcomes() -> Vec<Outcome> {
        let done = |already| Ok(Done { asset: json!({ "asset_id": "0199-x" }), already, verified: Verified::Md5 });
        let outcome = |path: &str, sent_bytes, result| Outcome {
            path: path.into(),
            size: Some(2048),
            session_id: Some("s".into()),
            sent_bytes,
            sent_parts: 1,
            result,
        };
        vec![
            outcome("a\x1b[2J.mov", 2048, done(false)),
            outcome("b.mov", 0, done(true)),
            Outcome::failed("c".into(), None, Error::Changed),
        ]
    }

    #[test]
    fn each_file_is_one_line_of_json_and_the_last_sums_up() {
        let mut out = Vec::new();
        let summary = Summary { batch: "b-81", interrupted: false, seconds: 1.5 };
        write_json(&mut out, &outcomes(), &summary).unwrap();
        let lines: Vec<Value> = out.split(|&b| b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["result"], "uploaded");
        assert_eq!(lines[0]["asset"]["asset_id"], "0199-x");
        assert_eq!(lines[0]["problem"], Value::Null);
        assert_eq!(lines[1]["result"], "already");
        assert_eq!(lines[2]["problem"]["code"], "file-changed");
        assert_eq!(lines[2]["upload_session_id"], Value::Null);
        let counts = json!({ "files": 3, "uploaded": 1, "already": 1, "failed": 1, "sent_bytes": 2048,
            "batch_reference": "b-81", "interrupted": false, "seconds": 1.5 });
        assert_eq!(lines[3]["summary"], counts);
    }

    #[test]
    fn the_table_has_a_row_for_each_file_and_moves_no_cursor() {
        let mut out = Vec::new();
        write_table(&mut out, &outcomes()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[1], format!("uploaded    2.00 KiB  md5       {:<36}  a\u{fffd}[2J.mov", "0199-x"));
        assert_eq!(rows[3], format!("failed             -  -         {:<36}  c", "-"));
    }
}
