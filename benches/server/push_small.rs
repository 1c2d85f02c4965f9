//! `quaymaster push` of folders of small files, compared with `rclone copy` of the same folder to the same store; and what
//! such a file costs the server.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::kit::{Api, Database, MIB, Server, Site, Store};
use crate::load::{median, millis};
use crate::presign::Presigner;
use crate::push::{PARALLEL, has_rclone, push, secs, write_noise};
use crate::table::Row;

/// Each file costs the server commits besides its bytes; rclone records nothing.
const SMALL: Files = Files { count: 2_000, bytes: 100_000, size: "100 kB", limit: 1.3 };
/// The largest files that go by one PUT: most of the time goes into their bytes.
const LARGER: Files = Files { count: 200, bytes: 5 * MIB, size: "5 MiB", limit: 1.1 };
/// Limit on the server's processor time for one small file, in units of one presign by the SDK, because machines differ:
/// 2.5 ms if a presign takes 0.0625 ms.
const CPU_LIMIT: f64 = 40.0;
const ROUNDS: usize = 3;
/// The objects of a round are deleted in the store and not in the server: no pass must find them missing.
const SETTINGS: [(&str, &str); 2] =
    [("QUAYMASTER_SCHEDULE__RECONCILE", "never"), ("QUAYMASTER_SCHEDULE__ORPHANS", "never")];

struct Files {
    count: usize,
    bytes: u64,
    size: &'static str,
    /// The largest ratio of push's time to rclone's.
    limit: f64,
}

pub async fn run() -> Vec<Row> {
    let dir = tempfile::Builder::new().prefix("quaymaster-bench").tempdir().unwrap();
    let (small, larger) = (folder(&dir, &SMALL), folder(&dir, &LARGER));

    let mut rows = Vec::new();
    for store in [Store::Embedded, Store::Garage] {
        let place = Place::new(Database::Sqlite, store).await;
        rows.push(beside_rclone(&SMALL, store, &place.rounds(&small, has_rclone()).await));
        // Garage is a process of its own, so that the server's processor time excludes the store.
        if store == Store::Garage {
            rows.push(place.cpu_row(&small).await);
        }
        rows.push(beside_rclone(&LARGER, store, &place.rounds(&larger, has_rclone()).await));
    }
    rows.push(Place::new(Database::Postgres, Store::Garage).await.cpu_row(&small).await);
    rows
}

/// Creates a folder with these files, all different.
fn folder(dir: &TempDir, files: &Files) -> PathBuf {
    let folder = dir.path().join(files.count.to_string());
    fs::create_dir(&folder).unwrap();
    for number in 0..files.count {
        write_noise(&folder.join(format!("still-{number}.bin")), files.bytes, number as u64);
    }
    folder
}

/// A running server.
struct Place {
    site: Site,
    server: Server,
    operator: Api,
}

/// Seconds of each command.
struct Round {
    push: f64,
    rclone: Option<f64>,
}

impl Place {
    async fn new(database: Database, store: Store) -> Self {
        let site = Site::new(database, store, &SETTINGS).await;
        let server = site.start().await;
        let operator = server.client_with(&site.operator_token());
        Self { site, server, operator }
    }

    /// Measures push and rclone in turns, so that other load on the machine affects both. The first round warms up and is
    /// left out.
    async fn rounds(&self, folder: &Path, with_rclone: bool) -> Vec<Round> {
        let mut rounds = Vec::new();
        for _ in 0..=ROUNDS {
            let push = self.push(folder).await;
            let rclone = with_rclone.then(|| self.by_rclone(folder));
            self.site.s3.empty().await;
            rounds.push(Round { push, rclone });
        }
        rounds.split_off(1)
    }

    /// Returns the seconds that the command took. Returns only after every asset is READY: promotions continue after the
    /// command, and would disturb the next measurement.
    async fn push(&self, folder: &Path) -> f64 {
        let batch = format!("{}-{}", folder.file_name().unwrap().display(), fastrand::u64(..));
        let push = push(&self.site, &self.server, folder, &batch);
        self.operator.all_ready().await;
        self.site.s3.empty().await;
        push
    }

    /// Measures the server's processor time for each file of the folder, while the SDK presigns URLs.
    async fn cpu_row(&self, folder: &Path) -> Row {
        let (mut each, mut presigns) = (Vec::new(), Vec::new());
        for _ in 0..=ROUNDS {
            let (presigner, before) = (Presigner::start(), self.server.cpu());
            self.push(folder).await;
            each.push(millis(self.server.cpu() - before) / SMALL.count as f64);
            presigns.push(presigner.end());
        }
        // The first round warms up.
        let (each_ms, sdk_ms) = (median(&each[1..]), median(&presigns[1..]));
        let database = self.site.database;
        let without = match database {
            Database::Sqlite => "without the store",
            Database::Postgres => "without database and store",
        };
        Row::new(
            format!("server's processor time, open to READY of {}, {} {without}", SMALL.size, database.name()),
            format!("{each_ms:.2} ms"),
        )
        .beside(format!("{sdk_ms:.3} ms, one presign by the SDK meanwhile"))
        .ratio(each_ms / sdk_ms)
        .limit(format!("{CPU_LIMIT} ×"), each_ms <= CPU_LIMIT * sdk_ms)
    }

    fn by_rclone(&self, folder: &Path) -> f64 {
        let s3 = &self.site.s3;
        let mut command = s3.rclone();
        command.arg("copy").arg(folder).arg(format!("store:{}/copied", s3.bucket_name()));
        secs(command.args(["--transfers", PARALLEL, "--checkers", PARALLEL, "--s3-no-check-bucket"]))
    }
}

fn beside_rclone(files: &Files, store: Store, rounds: &[Round]) -> Row {
    let speed = |secs: f64| format!("{secs:.2} s, {:.0} files/s", files.count as f64 / secs);
    let pushed = median(&rounds.iter().map(|round| round.push).collect::<Vec<_>>());
    let name = format!("push {} files of {}, {}", files.count, files.size, store.name());
    let row = Row::new(name, speed(pushed));
    let rclone: Vec<_> = rounds.iter().filter_map(|round| round.rclone).collect();
    if rclone.is_empty() {
        return row.beside("rclone is not installed");
    }
    let rclone = median(&rclone);
    let limit = files.limit;
    row.beside(format!("{}, rclone copy", speed(rclone)))
        .ratio(pushed / rclone)
        .limit(format!("{limit} ×"), pushed <= limit * rclone)
}
