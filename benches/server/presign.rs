//! Presigning many URLs at once, which `benches/presign.rs` measures.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::table::Row;

/// Microseconds per URL, of as many as are signed at once.
struct Line {
    count: u32,
    here: f64,
    sdk: f64,
}

pub fn run() -> Vec<Row> {
    let row = |line: &Line| {
        Row::new(format!("presign {} at once, per URL", line.count), format!("{:.2} µs", line.here))
            .beside(format!("{:.2} µs, the SDK's presigner", line.sdk))
            .ratio(line.here / line.sdk)
    };
    lines().iter().map(row).collect()
}

/// What one URL takes the SDK's presigner, in milliseconds.
pub fn sdk_ms() -> f64 {
    lines().iter().find(|line| line.count == 1).expect("one URL is signed alone").sdk / 1e3
}

/// The lines of that benchmark, which runs once however many parts ask for them.
fn lines() -> &'static [Line] {
    static LINES: OnceLock<Vec<Line>> = OnceLock::new();
    LINES.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["bench", "--locked", "--quiet", "--bench", "presign"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "the benchmark failed:\n{printed}");
        let lines: Vec<_> = printed.lines().filter_map(line).collect();
        assert!(!lines.is_empty(), "no line was understood:\n{printed}");
        lines
    })
}

/// `10000  long-lived  5.7ms  0.57 µs  220.5ms  22.05 µs  38.8x`
fn line(line: &str) -> Option<Line> {
    let [count, "long-lived", _, here, "µs", _, sdk, "µs", _] = line.split_whitespace().collect::<Vec<_>>()[..]
    else {
        return None;
    };
    Some(Line { count: count.parse().ok()?, here: here.parse().ok()?, sdk: sdk.parse().ok()? })
}
