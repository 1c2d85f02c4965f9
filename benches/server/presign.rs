//! Presigning many URLs at once, measured by `benches/presign.rs`; and one presign by the SDK as a unit for other figures.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::load::{median, millis};
use crate::sdk;
use crate::table::Row;

/// Microseconds per URL when `count` URLs are signed at once.
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

fn lines() -> Vec<Line> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["bench", "--locked", "--quiet", "--bench", "presign"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "the benchmark failed:\n{printed}");
    let lines: Vec<_> = printed.lines().filter_map(line).collect();
    assert!(!lines.is_empty(), "no line could be parsed:\n{printed}");
    lines
}

/// `10000  long-lived  5.7ms  0.57 µs  220.5ms  22.05 µs  38.8x`
fn line(line: &str) -> Option<Line> {
    let [count, "long-lived", _, here, "µs", _, sdk, "µs", _] = line.split_whitespace().collect::<Vec<_>>()[..]
    else {
        return None;
    };
    Some(Line { count: count.parse().ok()?, here: here.parse().ok()?, sdk: sdk.parse().ok()? })
}

/// Presigns URLs with the SDK while something else is measured. Its time is the unit for figures that depend on the machine
/// and on how busy it is.
pub struct Presigner {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

/// Pause between two presigns: short enough that the caches are as warm as for a request that follows similar ones.
const PAUSE: Duration = Duration::from_micros(100);

impl Presigner {
    pub fn start() -> Self {
        let ends = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (sdk, mut times) = (sdk::client(None), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let before = cpu_of_this_thread();
                runtime.block_on(sdk::presign(&sdk, 1));
                times.push(cpu_of_this_thread() - before);
                thread::sleep(PAUSE);
            }
            times
        });
        Self { ends, thread }
    }

    /// Ends it. Returns the median processor time of one presign, in milliseconds.
    pub fn end(self) -> f64 {
        self.ends.store(true, Ordering::Relaxed);
        millis(median(&self.thread.join().unwrap()))
    }
}

fn cpu_of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
}
