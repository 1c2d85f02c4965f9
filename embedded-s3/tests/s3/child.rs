//! The store in a separate process, which can be measured and killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use embedded_s3::Limits;

use crate::kit::config;

const ROOT: &str = "EMBEDDED_S3_CHILD_ROOT";
const LISTENS: &str = "child listens on ";

/// The child process: this same binary, running only this "test".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of other stories"]
async fn serve() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let server = embedded_s3::start(config(Path::new(&root), Limits::default())).await.unwrap();
    println!("\n{LISTENS}{}", server.addr());
    // Until the parent exits, or kills this process.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    server.shutdown(Duration::from_secs(5)).await;
}

pub struct StoreProcess {
    child: Child,
    _stdin: ChildStdin,
    pub endpoint: String,
}

impl StoreProcess {
    pub fn start(root: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::serve", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROOT, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = loop {
            let line = lines.next().expect("the child started").unwrap();
            if let Some(addr) = line.strip_prefix(LISTENS) {
                break addr.to_owned();
            }
        };
        let stdin = child.stdin.take().unwrap();
        std::thread::spawn(move || lines.for_each(drop)); // the child must not block on a full pipe
        Self { child, _stdin: stdin, endpoint: format!("http://{addr}") }
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Returns a figure of /proc/PID/status in KiB: `VmRSS` is the current memory, `VmHWM` its peak.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        // After `kill` the process is gone; then both calls fail, and nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
