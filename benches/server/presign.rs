//! Presigning many URLs at once, which `benches/presign.rs` measures.

use std::process::{Command, Stdio};

use crate::table::Row;

/// Runs that benchmark and takes its lines over.
pub fn run() -> Vec<Row> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["bench", "--locked", "--quiet", "--bench", "presign"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "the benchmark failed:\n{printed}");
    let rows: Vec<_> = printed.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "no line was understood:\n{printed}");
    rows
}

/// `10000  long-lived  5.7ms  0.57 µs  220.5ms  22.05 µs  38.8x`
fn row(line: &str) -> Option<Row> {
    let [count, "long-lived", _, here, "µs", _, there, "µs", _] = line.split_whitespace().collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let ratio = here.parse::<f64>().ok()? / there.parse::<f64>().ok()?;
    let name = format!("presign {count} at once, per URL");
    Some(Row::new(name, format!("{here} µs")).beside(format!("{there} µs, the SDK's presigner")).ratio(ratio))
}
