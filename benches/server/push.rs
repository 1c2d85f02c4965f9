//! `quaymaster push` of one large file, compared with two clients without sessions: boto3 and rclone. Each is timed from
//! the start of its process to its end.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use crate::kit::{Database, MIB, S3, Server, Site, Store};
use crate::load::median;
use crate::table::Row;

const FILE_BYTES: u64 = 1 << 30;
const PART_BYTES: u64 = 8 * MIB;
/// Parts in flight, for each of the three.
pub const PARALLEL: &str = "4";
const ROUNDS: usize = 5;

pub async fn run() -> Vec<Row> {
    let site = Site::new(Database::Sqlite, Store::Garage, &[]).await;
    let server = site.start().await;
    let s3 = site.s3.clone();
    let file = site.dir().join("reel.bin");
    write_noise(&file, FILE_BYTES, 1);

    // The venv that scripts/bench creates; not set if that failed, for example without a network.
    let python = std::env::var("QUAYMASTER_BENCH_PYTHON").ok();
    let has_rclone = has_rclone();
    let (mut pushed, mut boto3, mut alone, mut rclone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // In turns, so that other load on the machine affects all of them; the first round warms up.
    for round in 0..=ROUNDS {
        let secs = push(&site, &server, &file, &format!("round-{round}"));
        s3.empty().await;
        let boto3_secs = python.as_deref().map(|python| by_boto3(python, &s3, &file));
        let (boto3_secs, alone_secs) = boto3_secs.unzip();
        s3.empty().await;
        let rclone_secs = has_rclone.then(|| by_rclone(&s3, &file));
        s3.empty().await;
        if round > 0 {
            pushed.push(secs);
            boto3.extend(boto3_secs);
            alone.extend(alone_secs);
            rclone.extend(rclone_secs);
        }
    }
    let mut by_boto3 = row("boto3", median(&pushed), &boto3);
    if !alone.is_empty() {
        by_boto3.compared += &format!(", its upload alone {:.2} s", median(&alone));
    }
    vec![by_boto3, row("rclone", median(&pushed), &rclone)]
}

pub fn has_rclone() -> bool {
    Command::new("rclone").arg("version").output().is_ok_and(|output| output.status.success())
}

fn row(other: &str, pushed: f64, theirs: &[f64]) -> Row {
    let gib_per_sec = |secs: f64| format!("{secs:.2} s, {:.0} MiB/s", (FILE_BYTES / MIB) as f64 / secs);
    let row = Row::new(format!("push 1 GiB beside {other}"), gib_per_sec(pushed));
    if theirs.is_empty() {
        return row.beside(format!("{other} is not installed"));
    }
    let theirs = median(theirs);
    row.beside(gib_per_sec(theirs)).ratio(pushed / theirs).limit("no slower", pushed <= theirs)
}

/// Writes random bytes, which a store can neither compress nor deduplicate.
pub fn write_noise(path: &Path, bytes: u64, seed: u64) {
    let mut file = BufWriter::with_capacity(MIB as usize, File::create(path).unwrap());
    let mut noise = fastrand::Rng::with_seed(seed);
    let mut block = vec![0; MIB as usize];
    let mut left = bytes;
    while left > 0 {
        let block = &mut block[..left.min(MIB) as usize];
        noise.fill(block);
        file.write_all(block).unwrap();
        left -= block.len() as u64;
    }
    file.flush().unwrap();
}

/// Returns the seconds of the whole command, until the assets exist. A file that is pushed again requires another batch;
/// otherwise push finds the existing asset.
pub fn push(site: &Site, server: &Server, path: &Path, batch: &str) -> f64 {
    let mut command = site.quaymaster();
    command.arg("push").arg(path).args(["--server", &server.url, "--parallel", PARALLEL, "--json"]);
    command.args(["--batch", batch]).env("QUAYMASTER_TOKEN", &server.token);
    secs(&mut command)
}

/// Returns the seconds of the whole command, and of its upload alone, without the time to start Python and import modules.
fn by_boto3(python: &str, s3: &S3, file: &Path) -> (f64, f64) {
    let mut command = Command::new(python);
    command.arg("scripts/bench-boto3.py").arg(file).args([s3.bucket_name(), "reel.bin"]);
    command.args([&PART_BYTES.to_string(), PARALLEL]);
    let begun = Instant::now();
    let output = run_to_end(&mut command);
    (begun.elapsed().as_secs_f64(), String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// Returns the seconds of the whole command.
fn by_rclone(s3: &S3, file: &Path) -> f64 {
    let mut command = s3.rclone();
    command.arg("copyto").arg(file).arg(format!("store:{}/reel.bin", s3.bucket_name()));
    command.args(["--s3-chunk-size", &format!("{PART_BYTES}B"), "--s3-upload-cutoff", &format!("{PART_BYTES}B")]);
    command.args(["--s3-upload-concurrency", PARALLEL, "--s3-no-check-bucket", "--ignore-times"]);
    secs(&mut command)
}

/// Returns the seconds from a command's start to its end.
pub fn secs(command: &mut Command) -> f64 {
    let begun = Instant::now();
    run_to_end(command);
    begun.elapsed().as_secs_f64()
}

fn run_to_end(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}:\n{}", command.get_program(), String::from_utf8_lossy(&output.stderr));
    output
}
