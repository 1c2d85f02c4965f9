//! `quaymaster push` of one large file, beside two clients that know nothing of sessions: boto3 and rclone. Each is
//! timed from the start of its process to the end.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use crate::kit::{Database, MIB, S3, Server, Site, Store, from_backends};
use crate::load::median;
use crate::table::Row;

const FILE_BYTES: u64 = 1 << 30;
const PART_BYTES: u64 = 8 * MIB;
/// Parts in flight, for each of the three.
const PARALLEL: &str = "4";
const ROUNDS: usize = 5;

pub async fn run() -> Vec<Row> {
    let site = Site::new(Database::Sqlite, Store::Garage, &[]).await;
    let server = site.start().await;
    let s3 = site.s3.clone().unwrap();
    let file = site.dir().join("reel.bin");
    write_noise(&file);

    // The venv that scripts/bench made; where there was no network for it, it left none.
    let python = std::env::var("QUAYMASTER_BENCH_PYTHON").ok();
    let has_rclone = Command::new("rclone").arg("version").output().is_ok_and(|output| output.status.success());
    let (mut pushed, mut boto3, mut alone, mut rclone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // By turns, so that what else the machine does meets all of them; the first round warms up.
    for round in 0..=ROUNDS {
        let secs = push(&site, &server, &file, round);
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

fn row(other: &str, pushed: f64, theirs: &[f64]) -> Row {
    let gib_per_sec = |secs: f64| format!("{secs:.2} s, {:.0} MiB/s", (FILE_BYTES / MIB) as f64 / secs);
    let row = Row::new(format!("push 1 GiB beside {other}"), gib_per_sec(pushed));
    if theirs.is_empty() {
        return row.beside(format!("{other} is not installed"));
    }
    let theirs = median(theirs);
    row.beside(gib_per_sec(theirs)).ratio(pushed / theirs).limit("no slower", pushed <= theirs)
}

/// Bytes that no store can compress or find twice.
fn write_noise(path: &Path) {
    let mut file = BufWriter::with_capacity(MIB as usize, File::create(path).unwrap());
    let mut noise = fastrand::Rng::with_seed(1);
    let mut block = vec![0; MIB as usize];
    for _ in 0..FILE_BYTES / MIB {
        noise.fill(&mut block);
        file.write_all(&block).unwrap();
    }
    file.flush().unwrap();
}

/// The whole command, from its start to the asset.
fn push(site: &Site, server: &Server, file: &Path, round: usize) -> f64 {
    let mut command = site.quaymaster();
    command.arg("push").arg(file).args(["--server", &server.url, "--parallel", PARALLEL, "--json"]);
    // A batch of its own, or the second round would find the first one's asset.
    command.args(["--batch", &format!("round-{round}")]).env("QUAYMASTER_TOKEN", &server.token);
    let begun = Instant::now();
    run_to_end(&mut command);
    begun.elapsed().as_secs_f64()
}

/// The whole command, and of it the upload, without what Python needs to start and to import.
fn by_boto3(python: &str, s3: &S3, file: &Path) -> (f64, f64) {
    let mut command = Command::new(python);
    command.arg("scripts/bench-boto3.py").arg(file).args([s3.bucket_name(), "reel.bin"]);
    command.args([&PART_BYTES.to_string(), PARALLEL]);
    let begun = Instant::now();
    let output = run_to_end(&mut command);
    (begun.elapsed().as_secs_f64(), String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// The whole command.
fn by_rclone(s3: &S3, file: &Path) -> f64 {
    let set = |name: &str| from_backends(&format!("QUAYMASTER_TEST_S3_{name}"));
    let mut command = Command::new("rclone");
    // What this shell sets for other uses of S3, it would take for itself.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("RCLONE_CONFIG", "/dev/null").env("RCLONE_CONFIG_STORE_TYPE", "s3");
    command.env("RCLONE_CONFIG_STORE_PROVIDER", "Other").env("RCLONE_CONFIG_STORE_ENDPOINT", set("ENDPOINT"));
    command.env("RCLONE_CONFIG_STORE_REGION", set("REGION"));
    command.env("RCLONE_CONFIG_STORE_ACCESS_KEY_ID", set("ACCESS_KEY"));
    command.env("RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY", set("SECRET_KEY"));
    command.arg("copyto").arg(file).arg(format!("store:{}/reel.bin", s3.bucket_name()));
    command.args(["--s3-chunk-size", &format!("{PART_BYTES}B"), "--s3-upload-cutoff", &format!("{PART_BYTES}B")]);
    command.args(["--s3-upload-concurrency", PARALLEL, "--s3-no-check-bucket", "--ignore-times"]);
    let begun = Instant::now();
    run_to_end(&mut command);
    begun.elapsed().as_secs_f64()
}

fn run_to_end(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}:\n{}", command.get_program(), String::from_utf8_lossy(&output.stderr));
    output
}
