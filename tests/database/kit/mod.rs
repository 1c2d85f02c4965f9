//! Databases to test on: each test has one of its own, gone when the test is.

pub mod forger;
pub mod lives;
mod postgres;
pub mod rows;

use std::sync::Arc;

use migration::run;
use quaymaster::clock::Clock;
use quaymaster::database::Database;
use quaymaster::engine::Engine;
use quaymaster::settings::Settings;
use quaymaster::storage::Storage;
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, Value};
use tempfile::TempDir;

use postgres::Server;

/// Makes two tests of each function: `name::sqlite` and `name::postgres`.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$test($crate::kit::TestDb::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$test($crate::kit::TestDb::postgres().await).await;
            }
        }
    )+};
}

/// The name of a SQLite database in its folder.
const FILE: &str = "test.db";
const CONNECTIONS: u32 = 8;

/// An empty database and a pool of connections to it.
pub struct TestDb {
    pub pool: DatabaseConnection,
    url: String,
    home: Home,
}

/// What removes the database in the end.
enum Home {
    Folder(TempDir),
    Server(#[allow(dead_code, reason = "held for its Drop")] OneDatabase),
}

struct OneDatabase {
    server: Arc<Server>,
    name: String,
}

impl TestDb {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", folder.path().join(FILE).display());
        Self { pool: connect(&url, CONNECTIONS).await, url, home: Home::Folder(folder) }
    }

    pub async fn postgres() -> Self {
        let server = Server::shared().await;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        server.execute(&format!("CREATE DATABASE {name}")).await;
        let url = server.url(&name);
        Self { pool: connect(&url, CONNECTIONS).await, url, home: Home::Server(OneDatabase { server, name }) }
    }

    /// With the schema of today.
    pub async fn migrated(self) -> Self {
        run(&self.pool).await.unwrap();
        self
    }

    /// A second pool, as another process would have one.
    pub async fn another_pool(&self) -> DatabaseConnection {
        connect(&self.url, CONNECTIONS).await
    }

    /// For what is set for one connection.
    pub async fn one_connection(&self) -> DatabaseConnection {
        connect(&self.url, 1).await
    }

    /// The same database, opened with the settings of a server.
    pub async fn as_the_program_opens_it(&self, connections: u32) -> Database {
        let settings = self.settings(connections).database;
        match &self.home {
            Home::Folder(folder) => Database::connect(&settings, Some(&folder.path().join(FILE))).await.unwrap(),
            Home::Server(_) => Database::connect(&settings, None).await.unwrap(),
        }
    }

    /// For verbs that ask nothing of the store: there is none.
    pub async fn engine(&self) -> Engine {
        let settings = self.settings(CONNECTIONS);
        let storage = Storage::connect(&settings.storage).await.unwrap();
        Engine::new(self.as_the_program_opens_it(CONNECTIONS).await, storage, Clock::default(), Arc::new(settings))
    }

    fn settings(&self, connections: u32) -> Settings {
        let mut environment = match &self.home {
            Home::Folder(_) => no_store(),
            Home::Server(_) => postgres_environment(&self.url),
        };
        environment.push(("QUAYMASTER_DATABASE__MAX_CONNECTIONS", connections.to_string()));
        environment.push(("QUAYMASTER_JOBS__CONCURRENCY", "4".to_owned()));
        parse(environment)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    /// Runs SQL with `$1`, `$2`, … for the values; the same text works on both databases.
    pub async fn execute(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<u64, DbErr> {
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        Ok(self.pool.execute_raw(statement).await?.rows_affected())
    }

    /// The first column of every row, as text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.pool.query_all_raw(Statement::from_string(self.backend(), sql)).await.unwrap();
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }
}

/// An engine of another process on a PostgreSQL database, whose leases are as short as can be.
pub async fn engine_on(url: &str) -> Engine {
    let mut environment = postgres_environment(url);
    environment.push(("QUAYMASTER_JOBS__LEASE_SECS", "3".to_owned()));
    environment.push(("QUAYMASTER_JOBS__POLL_MILLIS", "50".to_owned()));
    let settings = parse(environment);
    let storage = Storage::connect(&settings.storage).await.unwrap();
    let database = Database::connect(&settings.database, None).await.unwrap();
    Engine::new(database, storage, Clock::default(), Arc::new(settings))
}

fn postgres_environment(url: &str) -> Vec<(&'static str, String)> {
    let mut environment = no_store();
    environment.push(("DATABASE_URL", url.to_owned()));
    environment.push(("JWT_SECRET", "a secret that is long enough, as secrets go".to_owned()));
    environment.push(("AUDIT_KEY", "a key that is long enough, as keys go in tests".to_owned()));
    environment
}

fn no_store() -> Vec<(&'static str, String)> {
    vec![
        ("AWS_BUCKET", "bucket".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "none".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "none".to_owned()),
    ]
}

fn parse(environment: Vec<(&'static str, String)>) -> Settings {
    Settings::parse(None, environment.into_iter().map(|(name, value)| (name.to_owned(), value))).unwrap()
}

impl Drop for OneDatabase {
    fn drop(&mut self) {
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        // A thread of its own, because a destructor cannot wait inside the test's runtime.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.execute(&format!("DROP DATABASE {name} WITH (FORCE)")));
        });
        dropped.join().expect("the test's database can be dropped");
    }
}

async fn connect(url: &str, connections: u32) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    options.map_sqlx_sqlite_opts(|sqlite| {
        sqlite.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal).busy_timeout(std::time::Duration::from_secs(20))
    });
    sea_orm::Database::connect(options).await.unwrap()
}
