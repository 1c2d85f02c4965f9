//! A PostgreSQL to make databases on: the one that `QUAYMASTER_TEST_POSTGRES` names
//! (`postgres://user@host:port/postgres`), or one that this process starts and that ends with it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use tokio::sync::OnceCell;

pub struct Server {
    /// Without the database's name.
    base_url: String,
    /// The server runs until this pipe closes, whatever ends this process.
    _lifeline: Option<(Child, ChildStdin)>,
}

/// Prints `ready` once the server answers, stops it when its standard input ends, leaves nothing behind.
const KEEPER: &str = r#"
    bin=$1 port=$2
    trap '' INT TERM
    dir=$(mktemp -d "${TMPDIR:-/tmp}/quaymaster-postgres.XXXXXX") || exit 1
    cd "$dir"
    "$bin/initdb" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >log 2>&1 &&
    {
        "$bin/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
            -c max_connections=300 >log 2>&1 </dev/null &
        postgres=$!
        until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do
            kill -0 $postgres 2>/dev/null || { postgres=; break; }
            sleep 0.05
        done
    }
    if [ -n "$postgres" ]; then
        echo ready
        read -r _
        kill -QUIT $postgres
        wait $postgres
    else
        cat log
    fi
    cd / && rm -rf "$dir"
"#;

impl Server {
    /// The one server of this test run.
    pub async fn shared() -> Arc<Self> {
        static SHARED: OnceCell<Arc<Server>> = OnceCell::const_new();
        let start = || async { tokio::task::spawn_blocking(|| Arc::new(Self::start())).await.unwrap() };
        Arc::clone(SHARED.get_or_init(start).await)
    }

    fn start() -> Self {
        if let Ok(url) = std::env::var("QUAYMASTER_TEST_POSTGRES") {
            let base = url.rsplit_once('/').expect("postgres://user@host:port/database").0;
            return Self { base_url: base.to_owned(), _lifeline: None };
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut keeper = as_ordinary_user()
            .args(["sh", "-c", KEEPER, "keeper"])
            .arg(binaries())
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = keeper.stdin.take().unwrap();
        let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines().map(Result::unwrap).peekable();
        if lines.peek().map(String::as_str) != Some("ready") {
            panic!("PostgreSQL did not start:\n{}", lines.collect::<Vec<_>>().join("\n"));
        }
        Self { base_url: format!("postgres://postgres@127.0.0.1:{port}"), _lifeline: Some((keeper, lifeline)) }
    }

    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.base_url)
    }

    pub async fn execute(&self, sql: &str) {
        let mut options = ConnectOptions::new(self.url("postgres"));
        options.max_connections(1).sqlx_logging(false);
        let db = Database::connect(options).await.unwrap();
        db.execute_unprepared(sql).await.unwrap();
        db.close().await.unwrap();
    }
}

/// A command that runs its arguments; as the user `postgres` where we are root, because PostgreSQL refuses root.
fn as_ordinary_user() -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if is_root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command
    } else {
        Command::new("env")
    }
}

/// The folder of the newest PostgreSQL: Debian's, else the one on the PATH.
fn binaries() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).collect::<Vec<_>>();
    let mut found: Vec<_> = debian.map(|version| version.path().join("bin")).filter(|bin| has_server(bin)).collect();
    found.sort();
    found
        .pop()
        .or_else(|| on_path.into_iter().find(|bin| has_server(bin)))
        .expect("PostgreSQL's initdb and postgres are installed, or QUAYMASTER_TEST_POSTGRES names a server to test on")
}

fn has_server(bin: &Path) -> bool {
    bin.join("initdb").exists() && bin.join("postgres").exists()
}
