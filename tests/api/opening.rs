//! To open a deployment is not to make one; and what one is made of is nobody else's to read.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use tempfile::TempDir;
use tokio::process::Command;

use crate::kit::{Pair, TestApp, free_port, stories};

stories![commands_but_two_make_no_deployment];

/// Each command that opens a deployment but `serve` and `tenant create`, with words that are good for it.
const COMMANDS: &[&[&str]] = &[
    &["tenant", "list"],
    &["tenant", "suspend", "acme"],
    &["tenant", "resume", "acme"],
    &["tenant", "quota", "acme"],
    &["tenant", "usage", "acme"],
    &["session", "list", "--tenant", "acme"],
    &["session", "show", "0199d2c4-7a10-7c3e-9b1d-5f0e2a6b7c8d"],
    &["session", "cancel", "0199d2c4-7a10-7c3e-9b1d-5f0e2a6b7c8d"],
    &["session", "fail", "0199d2c4-7a10-7c3e-9b1d-5f0e2a6b7c8d", "--reason", "x"],
    &["token", "--tenant", "acme"],
    &["token", "--operator"],
    &["uploads", "detect-abandoned"],
    &["uploads", "cleanup", "--dry-run"],
    &["uploads", "orphans"],
    &["uploads", "reconcile"],
    &["uploads", "runs"],
    &["uploads", "schedule"],
    &["uploads", "findings"],
    &["job", "list"],
    &["audit", "verify"],
    &["audit", "log"],
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn commands_but_two_make_no_deployment(app: TestApp) {
    let folder = app.folder.path().join("elsewhere");
    match app.pair {
        Pair::Embedded => app.set("QUAYMASTER_DATA_DIR", folder.to_str().unwrap()),
        Pair::Postgres => {}
    }
    let new = format!("new_{}", uuid::Uuid::new_v4().simple());
    if app.pair == Pair::Postgres {
        app.database.rows.execute_unprepared(&format!("CREATE DATABASE {new}")).await.unwrap();
        let mut url = url::Url::parse(&app.database.past_the_line()).unwrap();
        url.set_path(&new);
        app.set("DATABASE_URL", url.as_str());
    }
    let refused = async |why: &str| {
        for words in COMMANDS {
            let output = app.command(words).await;
            assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output.stderr));
            assert!(output.stdout.is_empty(), "{words:?}: {}", text(&output.stdout));
            let said = text(&output.stderr);
            assert!(
                said.contains("there is no deployment") && said.contains("tenant create"),
                "{why}, {words:?}: {said}"
            );
        }
    };
    refused("nothing is there").await;
    if app.pair == Pair::Embedded {
        assert!(!folder.exists());
        std::fs::create_dir(&folder).unwrap();
        refused("an empty folder").await;
        let receipt = app.folder.path().join("receipt.json");
        std::fs::write(&receipt, "{}").unwrap();
        app.set("AUDIT_KEY", "");
        let output = app.command(&["receipt", "verify", receipt.to_str().unwrap()]).await;
        assert!(text(&output.stderr).contains("there is no deployment"), "{output:?}");
        app.set("AUDIT_KEY", crate::kit::AUDIT_KEY);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    let made = app.command(&["tenant", "create", "acme"]).await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    for words in [&["tenant", "list"][..], &["audit", "verify"]] {
        let output = app.command(words).await;
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    }
    if app.pair == Pair::Postgres {
        app.set("DATABASE_URL", &app.database.env.1);
        app.database.rows.execute_unprepared(&format!("DROP DATABASE {new} WITH (FORCE)")).await.unwrap();
    } else {
        app.set("QUAYMASTER_DATA_DIR", &app.database.env.1);
    }
}

/// A folder for everything embedded, and the program in it.
struct Folder {
    folder: TempDir,
    port: u16,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), port: free_port() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
        command
            .args(words)
            .env_clear()
            .env("PORT", self.port.to_string())
            .env("QUAYMASTER_EMBEDDED__PORT", "0")
            .env("QUAYMASTER_DATA_DIR", self.data())
            .env("LOG_LEVEL", "warn")
            .kill_on_drop(true);
        command
    }

    /// A command that has to end by itself, as `serve` does where it cannot start.
    async fn run(&self, words: &[&str]) -> Output {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.command(words).output()).await;
        ended.unwrap_or_else(|_| panic!("{words:?} goes on")).unwrap()
    }

    async fn refused(&self, words: &[&str], says: &[&str]) {
        let output = self.run(words).await;
        let why = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {why}");
        assert!(says.iter().all(|says| why.contains(says)), "{words:?}: {why}");
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn a_secret_that_is_cut_short_is_refused() {
    let folder = Folder::new();
    assert!(folder.run(&["tenant", "create", "acme"]).await.status.success());
    for name in ["jwt-secret", "audit-key", "store-secret-access-key"] {
        let path = folder.data().join(name);
        let kept = std::fs::read(&path).unwrap();
        for short in ["", "\n", "a short one"] {
            std::fs::write(&path, short).unwrap();
            for words in [&["serve"][..], &["token", "--operator"], &["tenant", "create", "acme"]] {
                folder.refused(words, &[name, "at least 32"]).await;
            }
        }
        std::fs::write(&path, kept).unwrap();
    }
    assert!(folder.run(&["token", "--operator"]).await.status.success());
}

#[tokio::test]
async fn a_record_is_not_gone_on_with_by_another_key() {
    let folder = Folder::new();
    assert!(folder.run(&["tenant", "create", "acme"]).await.status.success());
    let path = folder.data().join("audit-key");
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for words in [&["serve"][..], &["audit", "verify"], &["tenant", "create", "acme"]] {
        folder.refused(words, &["audit-key is missing", "AUDIT_KEY"]).await;
    }
    assert!(!path.exists());
    std::fs::write(&path, kept).unwrap();
    assert!(folder.run(&["audit", "verify"]).await.status.success());
}

#[tokio::test]
async fn what_is_kept_in_a_folder_that_was_there_is_the_servers_own() {
    let folder = Folder::new();
    std::fs::create_dir(folder.data()).unwrap();
    std::fs::set_permissions(folder.data(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(folder.run(&["tenant", "create", "acme"]).await.status.success());
    // While it runs, SQLite's other files are there too.
    let mut server = folder.command(&["serve"]).spawn().unwrap();
    let health = format!("http://127.0.0.1:{}", folder.port);
    let mut tries = 0;
    while !folder.run(&["health", "--server", &health]).await.status.success() {
        tries += 1;
        assert!(tries < 300, "the server does not start");
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{} is mode {:o}", path.display(), mode(&path));
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    server.kill().await.unwrap();
    for name in ["quaymaster.db", "quaymaster.db-wal", "quaymaster.db-shm", "store", "jwt-secret", "audit-key"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
}
